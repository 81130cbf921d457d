"""Tokens in, tokens out, on a real server: log-probs, stops, refusals, questions."""

import asyncio

import numpy as np
import pytest

from areal_real.serving.client import ServerClient
from areal_real.serving.errors import RequestRefused
from areal_real.serving.options import Sampling
from tests.real.serving.lab import CONTEXT_TOKENS, EOS, EXACT, NO_END, VOCABULARY, Lab

pytestmark = pytest.mark.slow


def test_logprobs_are_those_of_the_model(lab: Lab) -> None:
    prompts = [[3, 4, 5], [9] * 40, list(range(VOCABULARY))]

    async def work() -> list[int]:
        rollouts = [lab.submit(prompt, 60) for prompt in prompts]
        await lab.settled(rollouts)
        return rollouts

    for rollout_id, prompt in zip(lab.run(work()), prompts, strict=True):
        segment = lab.host.segments()[rollout_id]
        assert (len(segment), segment.finish) == (60, "length")
        assert segment.spans == [(lab.version, 0, 60)]
        lab.check(prompt, segment)


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.5])
@pytest.mark.parametrize("interval", [0, 1, 7])
def test_logprobs_are_those_after_the_temperature(
    lab: Lab, temperature: float, interval: int
) -> None:
    prompt = [5, 6, 7, 8]
    sampling = Sampling(temperature=temperature, ignore_eos=True)

    async def work():
        assert lab.server.url is not None
        async with ServerClient(
            lab.server.url,
            api_token=lab.options.api_token,
            stream_interval_tokens=interval,
        ) as client:
            return await client.generate(prompt, 30, sampling, rid="own.")

    segment = lab.run(work())
    told = lab.partner.logprobs(lab.version, prompt, segment.ids, temperature or 1.0)
    np.testing.assert_allclose(segment.logprobs, told, rtol=0, atol=EXACT)
    if temperature == 0:
        assert list(segment.ids) == lab.partner.greedy(lab.version, prompt, 30)


def test_the_end_token_is_part_of_the_answer(lab: Lab) -> None:
    async def work():
        ends = Sampling(stop_token_ids=tuple(range(2, 9)))
        return await asyncio.gather(*(lab.server.ask([3, 4, 5], 400, ends) for _ in range(12)))

    ends = {EOS, *range(2, 9)}
    for segment in lab.run(work()):
        assert segment.finish == "stop"
        assert segment.ids[-1] in ends
        assert not ends.intersection(segment.ids[:-1])
        assert len(segment.ids) == len(segment.logprobs) == len(segment.versions)


@pytest.mark.parametrize(
    ("prompt", "tokens", "why"),
    [
        ([3] * (CONTEXT_TOKENS + 1), 5, f"context length ({CONTEXT_TOKENS}"),
        ([3] * (CONTEXT_TOKENS - 100), 200, f"{CONTEXT_TOKENS + 100} tokens"),
        ([3, VOCABULARY], 5, f"token id {VOCABULARY}"),  # SGLang would die of it
        ([-1], 5, "token id -1"),
        ([], 5, "nothing to do"),
        ([3], 0, "nothing to do"),
    ],
)
def test_what_cannot_be_done_fails_and_the_server_lives(
    lab: Lab, prompt: list[int], tokens: int, why: str
) -> None:
    async def work() -> tuple[int, int]:
        bad = lab.submit(prompt, tokens)
        good = lab.submit([3, 4], 5)
        await lab.settled([bad, good])
        with pytest.raises(RequestRefused, match="generate"):
            await lab.server.ask(prompt, tokens, NO_END)
        return bad, good

    bad, good = lab.run(work())
    [(rollout_id, reason)] = lab.host.of("failed")
    assert rollout_id == bad
    assert why in reason
    assert list(lab.host.segments()) == [good]


def test_more_rollouts_than_the_server_runs_at_once_wait(lab: Lab) -> None:
    async def work() -> None:
        rollouts = [lab.submit([3, 4], 300) for _ in range(20)]
        await lab.generating(rollouts[:8])
        assert sorted(lab.server.streamed()) == rollouts[:8]
        await lab.settled(rollouts)

    lab.run(work())
    assert len(lab.host.segments()) == 20


def test_a_question_that_nobody_waits_for_is_given_up(lab: Lab) -> None:
    async def work() -> None:
        question = asyncio.create_task(lab.server.ask([3, 4], 450, NO_END))
        await asyncio.sleep(0.05)
        question.cancel()
        await asyncio.gather(question, return_exceptions=True)
        rollouts = [lab.submit([3, 4], 450) for _ in range(8)]
        await lab.generating(rollouts)  # all at once: the question has left its place
        await lab.settled(rollouts)

    lab.run(work())
