"""The data loader: keeps prompts on offer and knows, for the simulator alone, how long answers get.

Nothing of a length reaches the scheduler before the rollout has generated it.
"""

from __future__ import annotations

from areal_sched.events import PromptArrived
from areal_sched.ids import GroupId, PromptId
from traces import WorkloadSource

BLOCK_GROUPS = 256
"""Groups drawn at a time; random access makes the values independent of it."""


class PromptFeed:
    """Groups of prompts, in order, drawn when they are offered.

    Args:
        source: prompt and response lengths by group number.
        group_size: rollouts of one prompt.
    """

    def __init__(self, source: WorkloadSource, group_size: int) -> None:
        self._source = source
        self._group_size = group_size
        self._next = 0
        self._first_of_block = 0
        self._prompts: list[int] = []
        self._responses: list[list[int]] = []
        self._left: dict[int, list[int]] = {}
        self._again: set[int] = set()  # were exhausted before, and have replacements to take

    def offer(self, step: int) -> PromptArrived:
        """The next group, its lengths drawn for this training step where the workload drifts."""
        group = self._next
        if group - self._first_of_block >= len(self._prompts):
            batch = self._source.groups(group, BLOCK_GROUPS, group_size=self._group_size, step=step)
            self._first_of_block = group
            self._prompts = batch.prompt_tokens.tolist()
            # Reversed, so that samples are taken in order from the end.
            self._responses = batch.response_tokens[:, ::-1].tolist()
        self._next += 1
        index = group - self._first_of_block
        self._left[group] = self._responses[index]
        return PromptArrived(
            prompt_id=PromptId(group),
            group_id=GroupId(group),
            group_size=self._group_size,
            prompt_tokens=self._prompts[index],
        )

    def take(self, group_id: int) -> int:
        """Response tokens of the group's next rollout."""
        left = self._left[group_id]
        tokens = left.pop()
        if not left:
            del self._left[group_id]
        return tokens

    def exhausted(self, group_id: int) -> bool:
        """Whether all rollouts of the group have been taken, for the first time."""
        if group_id in self._left:
            return False
        if group_id in self._again:
            self._again.remove(group_id)
            return False
        return True

    def left(self, group_id: int) -> int:
        """Rollouts of the group that have not been taken."""
        return len(self._left.get(group_id, ()))

    def put_back(self, group_id: int, response_tokens: int) -> None:
        """A rollout failed and is to be replaced: the replacement will answer at this length."""
        if group_id not in self._left:
            self._again.add(group_id)
            self._left[group_id] = []
        self._left[group_id].append(response_tokens)

    def give_up(self, group_id: int) -> bool:
        """Nothing more of the group will be taken; returns whether it was not exhausted before."""
        had_some = self._left.pop(group_id, None) is not None
        again = group_id in self._again
        self._again.discard(group_id)
        return had_some and not again
