"""Commands that cross with what a real server does at that moment."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from areal_real.serving.client import ServerClient
from tests.real.serving.lab import Lab

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("what", ["abort", "interrupt", "both"])
def test_rollouts_that_finish_while_they_are_stopped(lab: Lab, what: str) -> None:
    """Each has exactly one outcome (the host sees to that); both outcomes occur."""
    numbers = random.Random(what)

    async def work() -> dict[int, int]:
        rollouts = {lab.submit([3, 4, n % 30], 1 + 3 * n): 1 + 3 * n for n in range(40)}
        waiting = list(rollouts)
        await lab.until(lambda: any(lab.server.streamed().values()), "a first token")
        while waiting:
            await asyncio.sleep(numbers.uniform(0, 0.03))
            numbers.shuffle(waiting)
            some, waiting = waiting[:4], waiting[4:]
            if what != "interrupt":
                lab.server.abort(some)
            if what != "abort":
                lab.server.interrupt(some)
            if what == "both":
                lab.server.abort(some)
        await lab.settled(rollouts)
        return rollouts

    tokens = lab.run(work())
    outcomes = Counter(lab.host.kinds())
    assert outcomes["finished"] > 0
    if what == "interrupt":
        assert outcomes["failed"] == 0
        stopped = [segment for _, some in lab.host.of("interrupted") for segment in some.values()]
        assert outcomes["finished"] + len(stopped) == 40
        assert any(len(segment) for segment in stopped)
    else:
        assert outcomes["failed"] > 0
        assert {reason for _, reason in lab.host.of("failed")} == {"aborted"}
    for rollout_id, segment in lab.host.segments().items():
        assert segment.finish == "length"
        assert len(segment) == tokens[rollout_id]


def test_an_abort_that_overtakes_its_request(lab: Lab) -> None:
    async def work() -> list[int]:
        rollouts = []
        for _ in range(10):
            rollouts.append(lab.submit([5, 6], 400))
            lab.server.abort([rollouts[-1]])
        await lab.settled(rollouts)
        return rollouts

    rollouts = lab.run(work())
    assert sorted(lab.host.of("failed")) == [(x, "aborted") for x in rollouts]


def test_stopping_the_unknown_is_no_news(lab: Lab) -> None:
    async def work() -> None:
        rollout_id = lab.submit([5, 6], 3)
        await lab.settled([rollout_id])
        lab.server.abort([rollout_id, 123456])
        lab.server.interrupt([rollout_id, 123456])
        await asyncio.sleep(0.1)

    lab.run(work())
    assert lab.host.kinds() == ["finished"]


@pytest.mark.parametrize("how", ["abort", "interrupt"])
def test_a_stop_during_an_in_place_pause_is_not_lost(lab: Lab, how: str) -> None:
    """SGLang forgets an abort of a request that waits for the pause to end."""

    async def work() -> tuple[list[int], list[int]]:
        running = [lab.submit([5, 6, n], 450) for n in range(4)]
        await lab.generating(running, 3)
        on_their_way = [lab.submit([5, 6, n], 450) for n in range(4)]
        lab.server.load(lab.version + 1, "in_place")
        waiting = [lab.submit([5, 6, n], 450) for n in range(8)]
        stop = lab.server.abort if how == "abort" else lab.server.interrupt
        stop([*running, *on_their_way, *waiting])
        await lab.settled([*running, *on_their_way, *waiting])
        return running, [*on_their_way, *waiting]

    running, others = lab.run(work())
    if how == "abort":
        assert sorted(x for x, _ in lab.host.of("failed")) == sorted([*running, *others])
    else:
        assert len(lab.host.of("interrupted")) == 1
        [(_, stopped)] = lab.host.of("interrupted")
        assert sorted(stopped) == sorted([*running, *others])
        assert all(len(stopped[x]) >= 3 for x in running)
    assert lab.host.of("loaded") == [(lab.version,)]


def test_an_interruption_overtaken_by_new_weights(lab: Lab) -> None:
    async def work() -> list[int]:
        rollouts = [lab.submit([5, 6, n], 450) for n in range(10)]
        await lab.generating(rollouts[:8], 3)
        lab.server.interrupt(rollouts[:3])
        lab.server.abort(rollouts[3:5])
        lab.server.load(lab.version + 1, "interrupt")
        await lab.settled(rollouts)
        await lab.until(lambda: lab.host.of("loaded"), "the weights")
        return rollouts

    rollouts = lab.run(work())
    stopped = [set(some) for _, some in lab.host.of("interrupted")]
    assert sorted(stopped, key=len) == [set(rollouts[:3]), set(rollouts[5:])]
    assert {x for x, _ in lab.host.of("failed")} == set(rollouts[3:5])
    assert lab.host.kinds()[-1] == "loaded"


def test_an_abort_that_nobody_asked_for_loses_nothing(lab: Lab) -> None:
    """Someone else aborts everything on the server."""

    async def work() -> list[int]:
        rollouts = [lab.submit([5, 6, n], 400) for n in range(3)]
        await lab.generating(rollouts, 3)
        assert lab.server.url is not None
        async with ServerClient(lab.server.url, api_token=lab.options.api_token) as stranger:
            await stranger.abort_all()
        await lab.settled(rollouts)
        return rollouts

    rollouts = lab.run(work())
    assert lab.host.kinds() == ["interrupted"] * 3
    for _, some in lab.host.of("interrupted"):
        [(rollout_id, segment)] = some.items()
        assert len(segment) >= 3
        lab.check([5, 6, rollouts.index(rollout_id)], segment)
