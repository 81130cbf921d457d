"""Real servers that die, hang, or cannot load weights; two of them at once."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from areal_real.serving.client import ServerClient
from areal_real.serving.errors import RequestRefused, ServerGone
from areal_sched.measurements import ServerSpan
from tests.real.serving.lab import EXACT, NO_END, Lab
from tests.real.serving.processes import group

pytestmark = pytest.mark.slow


async def _lost(lab: Lab, rollouts: list[int], leader: int) -> None:
    """What the loss of a server in the midst of generation comes to."""
    await lab.until(lambda: lab.host.lost_reason, "the loss")
    # First what had been streamed, then the loss.
    assert lab.host.kinds() == ["interrupted", "lost"]
    [(_, stopped)] = lab.host.of("interrupted")
    assert set(stopped) <= set(rollouts)
    assert not lab.server.alive
    # Commands that cross with the news fall on deaf ears.
    lab.server.submit(999, [3], 5)
    lab.server.interrupt(rollouts)
    lab.server.abort(rollouts)
    lab.server.load(lab.version + 1, "interrupt")
    with pytest.raises(ServerGone, match="down"):
        await lab.server.ask([3], 5, NO_END)
    await lab.until(lambda: not group(leader), "the end of its processes", 20)
    assert lab.host.kinds() == ["interrupted", "lost"]


def tiled(lab: Lab) -> list[ServerSpan]:
    """All that the server has told of its time, checked; the span in progress is not among it."""
    spans = lab.host.spans
    assert all(span.start_ns < span.end_ns for span in spans)
    for last, span in itertools.pairwise(spans):
        assert last.end_ns == span.start_ns
        assert last.activity != span.activity
    return spans


def _sum(spans: list[ServerSpan], name: str) -> int:
    return sum(getattr(span, name) for span in spans)


def test_spans_tile_and_count(mortal: Lab) -> None:
    """Every nanosecond and every token of the server is told once."""
    tokens = 300

    async def work() -> int:
        prompts = {mortal.submit([n, n], tokens): [n, n] for n in range(4)}
        rollouts = list(prompts)
        await mortal.generating(rollouts, 20)
        mortal.server.interrupt(rollouts[:2])
        await mortal.until(lambda: mortal.host.of("interrupted"), "the interruption")
        [(_, stopped)] = mortal.host.of("interrupted")
        await mortal.settled(rollouts)
        mortal.server.load(mortal.version + 1, "in_place")
        await mortal.until(lambda: mortal.host.of("loaded"), "the weights")
        for rollout_id, segment in stopped.items():
            mortal.resubmit(rollout_id, prompts[rollout_id], tokens - len(segment), segment.ids)
        await mortal.settled(rollouts)
        return sum(2 + len(segment) for segment in stopped.values())

    before = len(mortal.host.spans)
    recomputed = mortal.run(work())
    mortal.run(asyncio.sleep(0.05))
    spans = tiled(mortal)
    mine = spans[before:]
    assert [x.activity for x in mine if x.activity != "idle"] == ["generate", "load", "generate"]
    assert _sum(mine, "generated_tokens") == 4 * tokens
    assert _sum(mine, "recomputed_tokens") == recomputed
    assert _sum([x for x in mine if x.activity != "generate"], "generated_tokens") == 0


def test_kill_a_server_in_the_midst_of_generation(lab: Lab, mortal: Lab) -> None:
    """What it had streamed is kept; another server does not mind; it comes back."""
    prompt = [4, 5, 6]

    async def work() -> list[int]:
        leader = mortal.server.pid
        assert leader is not None
        other = lab.submit(prompt, 400)
        rollouts = [mortal.submit(prompt, 450) for _ in range(10)]
        question = asyncio.create_task(mortal.server.ask(prompt, 450, NO_END))
        await mortal.generating(rollouts[:8], 10)
        os.kill(leader, signal.SIGKILL)
        await _lost(mortal, rollouts, leader)
        with pytest.raises(ServerGone):
            await question
        await lab.settled([other])
        return rollouts

    version = mortal.version
    rollouts = mortal.run(work())
    assert mortal.host.lost_reason is not None
    assert "signal 9" in mortal.host.lost_reason
    [(told, stopped)] = mortal.host.of("interrupted")
    assert told == version
    assert set(stopped) == set(rollouts[:8])
    for segment in stopped.values():
        assert segment.finish == "abort"
        assert len(segment) >= 10
        assert segment.spans == [(version, 0, len(segment))]
        mortal.check(prompt, segment)
    assert len(lab.host.segments()) == 1

    async def again() -> None:
        with pytest.raises(RuntimeError, match="is up"):
            await mortal.server.start(mortal.supply.folder(0), 0)
        rollout_id = mortal.submit(prompt, 30)
        await mortal.settled([rollout_id])

    mortal.host.reports.clear()
    mortal.run(mortal.server.restart(version + 1))
    assert (mortal.server.alive, mortal.version) == (True, version + 1)
    mortal.run(again())
    [segment] = mortal.host.segments().values()
    assert segment.spans == [(version + 1, 0, 30)]
    mortal.check(prompt, segment)


def test_a_server_that_hangs_is_found_and_killed(mortal: Lab) -> None:
    async def work() -> None:
        leader = mortal.server.pid
        assert leader is not None
        rollouts = [mortal.submit([3, 4], 450) for _ in range(3)]
        await mortal.generating(rollouts, 5)
        os.killpg(leader, signal.SIGSTOP)
        await _lost(mortal, rollouts, leader)

    mortal.run(work())
    assert mortal.host.lost_reason is not None
    assert "does not answer" in mortal.host.lost_reason


def test_weights_that_cannot_be_loaded_cost_the_server(mortal: Lab, tmp_path: Path) -> None:
    """The state knows no failed load: the server is lost, and comes back with other weights."""

    async def work() -> None:
        leader = mortal.server.pid
        assert leader is not None
        rollouts = [mortal.submit([3, 4], 450) for _ in range(3)]
        await mortal.generating(rollouts, 5)
        mortal.supply.wrong_folder = tmp_path
        mortal.server.load(mortal.version + 1, "interrupt")
        await mortal.settled(rollouts)
        await _lost(mortal, rollouts, leader)

    mortal.run(work())
    assert mortal.host.lost_reason is not None
    assert str(tmp_path) in mortal.host.lost_reason
    end_ns = time.monotonic_ns() - mortal.origin_ns
    mortal.server.close_spans(end_ns)
    spans = tiled(mortal)
    assert (spans[-1].activity, spans[-1].end_ns) == ("down", end_ns)


def test_a_refused_update_leaves_the_server_as_it_was(lab: Lab, tmp_path: Path) -> None:
    async def work() -> None:
        assert lab.server.url is not None
        async with ServerClient(lab.server.url, api_token=lab.options.api_token) as client:
            with pytest.raises(RequestRefused, match="status 400"):
                await client.update_from_disk(tmp_path / "nothing", lab.version + 1)
            assert await client.weight_version() == lab.version
            answer = await client.generate([3, 4], 10, NO_END, rid="after.")
        told = lab.partner.logprobs(lab.version, [3, 4], answer.ids)
        np.testing.assert_allclose(answer.logprobs, told, rtol=0, atol=EXACT)

    lab.run(work())
