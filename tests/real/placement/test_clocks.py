"""Times that come from another machine, whose clock began at another time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from areal_real.placement.on_ray import RayRanks, RayServer
from areal_real.serving.steps import StepLog
from areal_real.training.world import TrainerWorld
from areal_sched.measurements import EngineSteps
from tests.real.training.worlds import SETTINGS

MS = 1_000_000
AHEAD_NS = 77 * 86_400 * 10**9


class Call:
    """A method of an actor."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)

    async def remote(self) -> Any:
        return self._answers.pop(0)


class Actor:
    """What `RayServer` asks of an actor on a machine that has run for longer than this one."""

    def __init__(self, now_ns: int) -> None:
        there_ns = now_ns + AHEAD_NS
        requests = {
            "num_prefill_requests": 0,
            "sum_prefill_tokens": 0,
            "sum_prefill_kv_tokens": 0,
            "num_decode_requests": 2,
            "sum_decode_kv_tokens": 50,
        }
        of_sglang = {"wall_time": 0.0005, "scheduled_requests": requests}
        # Of our launcher for CPUs: the end of each step, on its machine's clock.
        of_ours = [(there_ns + x * MS, 0.0005, 0, 0, 0, 4, 100) for x in (2, 3)]
        told = [
            (there_ns + number * 10 * MS, number.to_bytes(8, "big"), msgspec.msgpack.encode(x))
            for number, x in enumerate([of_sglang, of_ours])
        ]
        told[0] = (there_ns + MS, *told[0][1:])
        self.look = Call((None, told), ("exited with status 0", []))


def test_steps_of_an_engine_elsewhere_are_on_our_clock() -> None:
    async def heard() -> tuple[list[EngineSteps], int]:
        measured: list[EngineSteps] = []
        log = StepLog(3, measured.append)
        log.begin(0)
        now_ns = time.monotonic_ns()
        told = {"url": "http://there", "pid": 1, "node": "there"}
        server = RayServer(Actor(now_ns), told, AHEAD_NS)
        while server.alive:
            await asyncio.sleep(0.05)
        assert server.ending == "exited with status 0"
        log.take(server.received)
        log.close()
        return measured, now_ns

    measured, now_ns = asyncio.run(heard())
    assert [(x.rollouts, x.steps, x.end_ns - now_ns) for x in measured] == [
        (2, 1, MS),
        (4, 2, 3 * MS),
    ]


@pytest.mark.parametrize("drift_ns", [0, 2 * 10**9, -2 * 10**9])
def test_nothing_that_a_trainer_elsewhere_tells_of_is_yet_to_come(
    drift_ns: int, tmp_path: Path
) -> None:
    spans: list[tuple[int, int]] = []
    world = TrainerWorld(
        SETTINGS,
        log=tmp_path / "log",
        on_span=lambda activity, version, start_ns, end_ns, *_: spans.append((start_ns, end_ns)),
    )
    world._ranks = RayRanks([], [], lambda: None)
    world._ranks.clock_ahead_ns = AHEAD_NS
    before_ns = time.monotonic_ns()
    there_ns = before_ns + AHEAD_NS + drift_ns
    world._take({"span": ["train", 1, there_ns - 5 * MS, there_ns, 0, 1]})
    [(start_ns, end_ns)] = spans
    assert start_ns <= end_ns <= time.monotonic_ns()
    if drift_ns <= 0:
        assert (start_ns, end_ns) == (before_ns + drift_ns - 5 * MS, before_ns + drift_ns)
