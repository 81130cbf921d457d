"""What the engine did in each step: from SGLang's messages, and from a real server."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from areal_real.serving.server import HEAR_STEPS_S
from areal_real.serving.steps import MOST_JOINED, StepLog
from areal_sched.measurements import EngineSteps
from tests.real.serving.lab import Lab

MS = 1_000_000


class Messages:
    """Makes what a server publishes, one step a millisecond."""

    def __init__(self) -> None:
        self.received: deque[tuple[int, bytes, bytes]] = deque()
        self.number = 0
        self.now_ns = time.monotonic_ns()

    def step(self, *, prefill: tuple[int, int, int] = (0, 0, 0), decode: tuple[int, int] = (0, 0)):
        """Prefill of (rollouts, new tokens, cached tokens), or decode of (rollouts, context)."""
        self.now_ns += MS
        told: dict[str, Any] = {
            "num_prefill_requests": prefill[0],
            "sum_prefill_tokens": prefill[1],
            "sum_prefill_kv_tokens": prefill[2],
            "num_decode_requests": decode[0],
            "sum_decode_kv_tokens": decode[1],
        }
        payload = {"wall_time": 0.0005, "scheduled_requests": told, "worker_id": ""}
        packed = msgspec.msgpack.encode(payload)
        self.received.append((self.now_ns, self.number.to_bytes(8, "big"), packed))
        self.number += 1


def told(messages: Messages) -> list[EngineSteps]:
    measured: list[EngineSteps] = []
    log = StepLog(3, measured.append)
    log.begin(0)
    log.take(messages.received)
    log.close()
    assert not messages.received
    return measured


def test_steps_in_a_row_that_do_the_same_are_joined() -> None:
    messages = Messages()
    messages.step(prefill=(4, 40, 8))
    for step in range(10):
        messages.step(decode=(4, 48 + 4 * step))
    messages.step(decode=(3, 70))
    prefill, decode, last = told(messages)
    assert (prefill.activity, prefill.steps, prefill.rollouts) == ("prefill", 1, 4)
    assert (prefill.new_tokens, prefill.context_tokens) == (40, 8)
    assert (decode.activity, decode.steps, decode.rollouts) == ("decode", 10, 4)
    assert decode.context_tokens == sum(48 + 4 * step for step in range(10))
    assert decode.end_ns - decode.start_ns == 10 * MS
    assert decode.forward_ns == 5 * MS
    assert decode.start_ns == prefill.end_ns
    assert (last.steps, last.rollouts, last.server_id) == (1, 3, 3)


def test_long_runs_are_told_in_pieces() -> None:
    messages = Messages()
    for _ in range(2 * MOST_JOINED + 1):
        messages.step(decode=(1, 5))
    assert [x.steps for x in told(messages)] == [MOST_JOINED, MOST_JOINED, 1]


def test_after_a_lost_message_nobody_knows_when_the_next_step_began() -> None:
    messages = Messages()
    messages.step(decode=(2, 5))
    messages.number += 1
    messages.step(decode=(2, 9))
    messages.step(decode=(2, 11))
    first, second = told(messages)
    assert (first.steps, second.steps) == (1, 1)
    assert second.context_tokens == 11


def test_signs_of_life_are_no_steps() -> None:
    messages = Messages()
    messages.step()
    messages.step(decode=(2, 5))
    messages.step()
    assert [x.rollouts for x in told(messages)] == [2]


def test_what_the_server_did_else_is_not_part_of_a_step() -> None:
    measured: list[EngineSteps] = []
    log = StepLog(0, measured.append)
    log.begin(0)
    messages = Messages()
    messages.step(decode=(2, 5))
    log.take(messages.received)
    time.sleep(0.005)  # beyond the end of that step
    log.generating()
    messages.now_ns = time.monotonic_ns()
    messages.step(decode=(2, 7))
    log.take(messages.received)
    log.close()
    assert [x.steps for x in measured] == [1, 1]
    assert measured[1].start_ns > measured[0].end_ns


@pytest.mark.slow
def test_a_real_server_tells_of_every_token(lab: Lab) -> None:
    async def work() -> None:
        await lab.settled([lab.submit([3, 4], 40)])  # lets out what other tests have left
        await asyncio.sleep(2 * HEAR_STEPS_S)
        await lab.settled([lab.submit([3, 4], 2)])
        await asyncio.sleep(2 * HEAR_STEPS_S)
        lab.host.steps.clear()
        await lab.settled([lab.submit([3, 4, 5 + x], 30 + x) for x in range(6)])
        await asyncio.sleep(2 * HEAR_STEPS_S)
        await lab.settled([lab.submit([3, 4], 2)])  # what follows ends the last record
        await asyncio.sleep(2 * HEAR_STEPS_S)

    lab.run(work())
    steps = lab.host.steps
    prefilled = [x for x in steps if x.activity == "prefill"]
    decoded = [x for x in steps if x.activity == "decode"]
    # The step that completes a prompt makes its first token. The newest may not be sent yet.
    assert sum(x.steps * x.rollouts for x in prefilled) in (6, 7)
    assert sum(x.steps * x.rollouts for x in decoded) >= sum(29 + x for x in range(6))
    assert sum(x.new_tokens + x.context_tokens for x in prefilled) in (6 * 3, 6 * 3 + 2)
    for step in steps:
        assert step.forward_ns > 0
        assert step.start_ns < step.end_ns
    for before, after in pairwise(steps):
        assert before.end_ns <= after.start_ns
