"""Rewards: answers judged in worker processes, while generation goes on.

`pool.RewardPool` hands answers to workers (`worker`), each a process of its own that can be killed.
A worker judges by the problem's kind: `exact`, `math_answer` or `code`. Programs that a model wrote
run only inside `sandbox`, a process below the worker that can reach neither files nor the network.

Nothing is imported here, so that a worker starts in a few hundredths of a second.
"""
