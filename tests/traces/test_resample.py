from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces import (
    LogNormalGroups,
    ResampledWorkload,
    SyntheticWorkload,
    constant_prompts,
    tabulate,
    validate,
    variance_components,
)
from traces.resample import _pick_distinct


def table_of(prompts: dict[int, list[int]], prompt_tokens: int | None = None) -> pd.DataFrame:
    """One group per prompt; a prompt has as many tokens as its id says, if nothing else."""
    return validate(
        pd.DataFrame(
            [
                {
                    "group_id": prompt_id,
                    "prompt_id": prompt_id,
                    "sample_index": index,
                    "prompt_tokens": prompt_id if prompt_tokens is None else prompt_tokens,
                    "response_tokens": tokens,
                }
                for prompt_id, lengths in prompts.items()
                for index, tokens in enumerate(lengths)
            ]
        )
    )


# The response lengths of a prompt start with its id, so a length says where it was drawn.
PROMPTS = {7: [701, 702, 703, 704, 705], 3: [301, 302], 5: [501]}
LIMITS: dict[str, Any] = {"seed": 4, "max_response_tokens": 1_000, "max_prompt_tokens": 1_000}


def resampled(**changes: Any) -> ResampledWorkload:
    table = changes.pop("table", None)
    return ResampledWorkload(table_of(PROMPTS) if table is None else table, **(LIMITS | changes))


@given(
    mode=st.sampled_from(["by_prompt", "pooled"]),
    seed=st.integers(0, 2**64 - 1),
    first=st.integers(0, 2**40),
    cuts=st.lists(st.integers(0, 300), min_size=3, max_size=5).map(sorted),
    group_size=st.integers(1, 6),
    model=st.sampled_from([None, constant_prompts(9)]),
)
def test_how_requests_are_cut_makes_no_difference(
    mode: str, seed: int, first: int, cuts: list[int], group_size: int, model: object
) -> None:
    source = resampled(mode=mode, seed=seed, prompt_model=model)

    def ask(start: int, stop: int) -> tuple[list[int], list[list[int]]]:
        batch = source.groups(first + start, stop - start, group_size=group_size, step=0.0)
        return batch.prompt_tokens.tolist(), batch.response_tokens.tolist()

    prompts, responses = [], []
    for start, stop in itertools.pairwise(cuts):
        part = ask(start, stop)
        prompts += part[0]
        responses += part[1]
    assert ask(cuts[0], cuts[-1]) == (prompts, responses)


@given(first=st.integers(0, 10_000), group_size=st.integers(1, 7))
def test_a_group_is_drawn_from_one_prompt(first: int, group_size: int) -> None:
    batch = resampled().groups(first, 100, group_size=group_size, step=0.0)
    for prompt, responses in zip(batch.prompt_tokens, batch.response_tokens, strict=True):
        assert set(responses) <= set(PROMPTS[prompt])
        if len(PROMPTS[prompt]) >= group_size:
            assert len(set(responses)) == group_size


def test_every_prompt_and_every_answer_is_as_likely() -> None:
    batch = resampled().groups(0, 60_000, group_size=2, step=0.0)
    for prompt, answers in PROMPTS.items():
        chosen = batch.prompt_tokens == prompt
        assert np.mean(chosen) == pytest.approx(1 / 3, abs=0.01)
        for answer in answers:
            for sample in (0, 1):
                share = np.mean(batch.response_tokens[chosen, sample] == answer)
                assert share == pytest.approx(1 / len(answers), abs=0.015)


def test_all_groups_of_a_prompt_are_drawn_from_together() -> None:
    table = table_of({1: [11, 12], 2: [13, 14]})
    table["prompt_id"], table["prompt_tokens"] = 9, 9
    responses = resampled(table=table).groups(0, 50, group_size=4, step=0.0).response_tokens
    assert np.sort(responses, axis=1).tolist() == [[11, 12, 13, 14]] * 50


def test_pooled_responses_come_from_everywhere_with_equal_weight() -> None:
    batch = resampled(mode="pooled").groups(0, 20_000, group_size=4, step=0.0)
    for prompt, answers in PROMPTS.items():
        assert np.mean(batch.prompt_tokens == prompt) == pytest.approx(1 / 3, abs=0.015)
        for answer in answers:
            share = np.mean(batch.response_tokens == answer)
            assert share == pytest.approx(1 / 8, abs=0.006)


def test_by_prompt_keeps_the_correlation_and_pooled_loses_it() -> None:
    model = LogNormalGroups(8.0, 0.5, 0.4)
    source = SyntheticWorkload(model, constant_prompts(50), 1, 10**6, 100)
    table = tabulate(source, count=400, group_size=16)

    def correlation(mode: Any) -> float:
        again = ResampledWorkload(
            table, seed=2, max_response_tokens=10**6, max_prompt_tokens=100, mode=mode
        )
        drawn = tabulate(again, count=2_000, group_size=8)
        return variance_components(drawn).intra_class_correlation

    expected = variance_components(table).intra_class_correlation
    assert correlation("by_prompt") == pytest.approx(expected, abs=0.04)
    assert correlation("pooled") == pytest.approx(0.0, abs=0.02)


@given(
    sizes=st.lists(st.integers(6, 2**40), min_size=1, max_size=5),
    seed=st.integers(0, 99),
    picks=st.integers(1, 6),
)
def test_distinct_picks_are_the_head_of_a_shuffle(sizes: list[int], seed: int, picks: int) -> None:
    uniforms = np.random.default_rng(seed).random((picks, len(sizes)))
    chosen = _pick_distinct(uniforms, np.array(sizes))
    for column, size in enumerate(sizes):
        contents: dict[int, int] = {}
        for index in range(picks):
            place = index + int(uniforms[index, column] * (size - index))
            here, there = contents.get(index, index), contents.get(place, place)
            contents[index], contents[place] = there, here
            assert chosen[index, column] == there


def test_lengths_are_scaled_rounded_and_clipped() -> None:
    table = table_of({1: [1, 10, 25, 1000]}, prompt_tokens=80)
    source = resampled(table=table, length_scale=0.3, max_response_tokens=100, max_prompt_tokens=50)
    batch = source.groups(0, 3, group_size=4, step=0.0)
    assert np.sort(batch.response_tokens, axis=1).tolist() == [[1, 3, 8, 100]] * 3
    assert batch.prompt_tokens.tolist() == [50] * 3


def test_unrecorded_prompt_lengths_need_a_model() -> None:
    table = table_of(PROMPTS, prompt_tokens=0)
    with pytest.raises(ValueError, match="give a prompt_model"):
        resampled(table=table)
    batch = resampled(table=table, prompt_model=constant_prompts(33)).groups(
        0, 5, group_size=1, step=0.0
    )
    assert batch.prompt_tokens.tolist() == [33] * 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "by_group"}, "mode must be 'by_prompt' or 'pooled', got 'by_group'"),
        ({"length_scale": 0.0}, "length_scale must be finite and above 0"),
        ({"length_scale": math.nan}, "length_scale must be finite and above 0"),
        ({"seed": -1}, "seed must be"),
        ({"max_response_tokens": 0}, "max_response_tokens must be at least 1"),
        ({"table": table_of(PROMPTS).drop(columns="group_id")}, "column 'group_id': is missing"),
    ],
)
def test_bad_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resampled(**changes)


def test_bad_requests_are_named() -> None:
    with pytest.raises(ValueError, match="group_size must be at least 1"):
        resampled().groups(0, 1, group_size=0, step=0.0)
