"""New weights on a real server: three modes, two transports, and what is exact after each."""

from __future__ import annotations

import asyncio
from typing import Literal

import numpy as np
import pytest

from areal_real.serving.client import ServerClient
from areal_real.serving.segment import Segment
from areal_sched.commands import UpdateMode
from tests.real.serving.lab import EXACT, NO_END, Lab

pytestmark = pytest.mark.slow

PROMPTS = [[3, 4, 5, number] for number in range(12)]
PLACES = 8  # of the server; four rollouts wait
TOKENS = 600

transport = pytest.mark.parametrize("transport", ["disk", "collective"])


async def _update(lab: Lab, mode: UpdateMode) -> list[int]:
    """Load the next weights while all places are taken; submit two more rollouts meanwhile."""
    rollouts = [lab.submit(prompt, TOKENS) for prompt in PROMPTS]
    await lab.generating(rollouts[:PLACES], 20)
    version = lab.version + 1
    lab.server.load(version, mode)
    rollouts += [lab.submit(prompt, 20) for prompt in PROMPTS[:2]]
    with pytest.raises(RuntimeError, match="loading"):
        lab.server.load(version + 1, mode)
    await lab.until(lambda: lab.host.of("loaded"), "the weights")
    assert lab.host.of("loaded") == [(version,)]
    assert lab.version == version
    return rollouts


async def _new_requests_are_exact(lab: Lab) -> None:
    """No KV cache of older weights is found by what is asked now, on prompts used before."""
    answers = await asyncio.gather(*(lab.server.ask(p, 30, NO_END) for p in PROMPTS[:8]))
    for prompt, answer in zip(PROMPTS, answers, strict=False):
        assert answer.spans == [(lab.version, 0, 30)]
        lab.check(prompt, answer)


@transport
def test_interrupt(lab: Lab, transport: Literal["disk", "collective"]) -> None:
    lab.supply.collective = transport == "collective"
    old = lab.version

    async def work() -> list[int]:
        rollouts = await _update(lab, "interrupt")
        # Everything there was is reported once, before the weights are in.
        # (Of those submitted meanwhile some may be done by now.)
        assert lab.host.kinds()[:2] == ["interrupted", "loaded"]
        [(version, stopped)] = lab.host.of("interrupted")
        assert version == old
        assert set(stopped) == set(rollouts[:12])
        for number, rollout_id in enumerate(rollouts[:12]):
            segment = stopped[rollout_id]
            assert segment.finish == "abort"
            assert (len(segment) >= 20) == (number < PLACES)
            left = TOKENS - len(segment)
            lab.resubmit(rollout_id, PROMPTS[number], left, answered=segment.ids)
        await lab.settled(rollouts)
        await _new_requests_are_exact(lab)
        return rollouts

    rollouts = lab.run(work())
    [(_, stopped)] = lab.host.of("interrupted")
    for number, rollout_id in enumerate(rollouts):
        before: Segment | None = stopped.get(rollout_id)
        after = lab.host.segments()[rollout_id]
        assert after.spans == [(old + 1, 0, len(after))]
        prompt = (PROMPTS + PROMPTS[:2])[number]
        if before is None:
            assert len(after) == 20
            lab.check(prompt, after)
        else:
            assert len(before) + len(after) == TOKENS
            if len(before):
                assert before.spans == [(old, 0, len(before))]
                lab.check(prompt, before)
            lab.check([*prompt, *before.ids], after)


@transport
def test_in_place(lab: Lab, transport: Literal["disk", "collective"]) -> None:
    lab.supply.collective = transport == "collective"
    old = lab.version

    async def work() -> list[int]:
        rollouts = await _update(lab, "in_place")
        assert lab.host.kinds()[0] == "loaded"
        await _new_requests_are_exact(lab)
        await lab.settled(rollouts)
        return rollouts

    rollouts = lab.run(work())
    assert not lab.host.of("interrupted")
    for number, rollout_id in enumerate(rollouts):
        segment = lab.host.segments()[rollout_id]
        if number < PLACES:
            [(first, _, cut), (second, _, end)] = segment.spans
            assert (first, second, end) == (old, old + 1, TOKENS)
            assert cut >= 20
        else:
            assert segment.spans == [(old + 1, 0, len(segment))]
        # On the KV cache that was kept, to the token.
        lab.check((PROMPTS + PROMPTS[:2])[number], segment)


@transport
def test_drain(lab: Lab, transport: Literal["disk", "collective"]) -> None:
    lab.supply.collective = transport == "collective"
    old = lab.version

    async def work() -> list[int]:
        rollouts = await _update(lab, "drain")
        # Those that were running are done, those that waited have not begun.
        assert {report[1] for report in lab.host.reports[:PLACES]} == set(rollouts[:PLACES])
        assert lab.host.kinds()[: PLACES + 1] == ["finished"] * PLACES + ["loaded"]
        await lab.settled(rollouts)
        await _new_requests_are_exact(lab)
        return rollouts

    for number, rollout_id in enumerate(lab.run(work())):
        segment = lab.host.segments()[rollout_id]
        assert segment.spans == [(old + (number >= PLACES), 0, len(segment))]
        lab.check((PROMPTS + PROMPTS[:2])[number], segment)


@pytest.mark.parametrize("mode", ["interrupt", "in_place", "drain"])
def test_an_idle_server_loads_and_reports_nothing_else(lab: Lab, mode: UpdateMode) -> None:
    async def work() -> None:
        lab.server.load(lab.version + 1, mode)
        await lab.until(lambda: lab.host.of("loaded"), "the weights")

    lab.run(work())
    assert lab.host.kinds() == ["loaded"]


def test_the_prefix_cache_keeps_no_trap_though_it_is_set(lab: Lab) -> None:
    """What the cache key is for: without it a request finds KV of weights that are gone."""
    prompt = [7] * 300

    async def work() -> None:
        url = lab.server.url
        assert url is not None
        async with ServerClient(url, api_token=lab.options.api_token) as client:
            await client.generate(prompt, 2, NO_END, rid="a.")
            before = await lab.server.ask(prompt, 2, NO_END)
            lab.server.load(lab.version + 1, "in_place")
            await lab.until(lambda: lab.host.of("loaded"), "the weights")
            without = await client.generate(prompt, 10, NO_END, rid="b.")
            within = await lab.server.ask(prompt, 10, NO_END)
            again = await lab.server.ask(prompt, 10, NO_END)
        told = lab.partner.logprobs(lab.version, prompt, without.ids)
        assert without.cached_tokens > 250
        assert np.abs(without.logprobs - told).max() > 0.01  # the trap
        assert before.cached_tokens == 0
        assert within.cached_tokens == 0
        lab.check(prompt, within)
        assert again.cached_tokens > 250  # and yet the cache is of use
        lab.check(prompt, again)

    lab.run(work())


def test_a_question_begins_anew_on_new_weights(lab: Lab) -> None:
    async def work() -> Segment:
        question = asyncio.create_task(lab.server.ask([3, 4], 400, NO_END))
        rollout_id = lab.submit([3, 4], 400)
        await lab.generating([rollout_id], 10)
        lab.server.load(lab.version + 1, "interrupt")
        answer = await question
        assert set(lab.host.of("interrupted")[0][1]) == {rollout_id}
        return answer

    answer = lab.run(work())
    assert answer.spans == [(lab.version, 0, 400)]
    lab.check([3, 4], answer)


def test_a_rollout_interrupted_often_is_what_its_spans_say(lab: Lab) -> None:
    """Some by command, some by new weights, each resumed at once, on whatever weights there are."""
    prompts = {}
    pieces: dict[int, list[Segment]] = {}

    async def work() -> None:
        for number in range(6):
            rollout_id = lab.submit([11, 12, number], TOKENS)
            prompts[rollout_id] = [11, 12, number]
            pieces[rollout_id] = []
        for round_ in range(5):
            await lab.generating(prompts, 5)
            lab.host.reports.clear()
            if round_ % 2:
                lab.server.load(lab.version + 1, "interrupt")
            else:
                lab.server.interrupt(list(prompts))
            await lab.until(lambda: lab.host.of("interrupted"), "the interruption")
            [(_, stopped)] = lab.host.of("interrupted")
            assert set(stopped) == set(prompts)
            for rollout_id, segment in stopped.items():
                pieces[rollout_id].append(segment)
                answered = [x for piece in pieces[rollout_id] for x in piece.ids]
                left = TOKENS - len(answered)
                lab.resubmit(rollout_id, prompts[rollout_id], left, answered=answered)
        await lab.settled(prompts)

    first = lab.version
    lab.run(work())
    assert lab.version == first + 2
    for rollout_id, segment in lab.host.segments().items():
        answered: list[int] = []
        seen = []
        for piece in [*pieces[rollout_id], segment]:
            assert [end - start for _, start, end in piece.spans] == [len(piece)]
            lab.check([*prompts[rollout_id], *answered], piece)
            answered += piece.ids
            seen.append(piece.spans[0][0])
        assert len(answered) == TOKENS
        assert seen == sorted(seen)
        assert {first, first + 1, first + 2} == set(seen)


def test_versions_are_what_the_server_was_told(lab: Lab) -> None:
    """Of its state, and of each token: nothing is guessed here."""
    lab.run(_label(lab))


async def _label(lab: Lab) -> None:
    url = lab.server.url
    assert url is not None
    async with ServerClient(url, api_token=lab.options.api_token) as client:
        assert await client.weight_version() == lab.version
        answer = await client.generate([3], 3, NO_END, rid="label.")
    assert answer.versions.tolist() == [lab.version] * 3
    told = lab.partner.logprobs(lab.version, [3], answer.ids)
    np.testing.assert_allclose(answer.logprobs, told, rtol=0, atol=EXACT)
