"""Advantages against group by group, token by token sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from areal_real.ppo.advantages import (
    BASELINES,
    Baseline,
    normalise,
    response_mask,
    sequence_advantages,
    token_advantages,
)
from areal_real.training.batch import Batch, Sample

reward = st.floats(-5, 5, width=32).map(lambda value: round(value, 2))
answers = st.lists(st.tuples(reward, st.integers(0, 3)), max_size=12)


def arrays(rows: list[tuple[float, int]]) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.asarray([row[0] for row in rows], np.float32),
        np.asarray([row[1] for row in rows], np.int64),
    )


@given(answers, st.sampled_from(["grpo", "rloo", "none"]))
def test_each_answer_is_compared_with_its_group(
    rows: list[tuple[float, int]], baseline: Baseline
) -> None:
    rewards, groups = arrays(rows)
    found = sequence_advantages(rewards, groups, baseline=baseline)
    for i, (own, group) in enumerate(rows):
        same = [r for r, g in rows if g == group]
        others = [r for j, (r, g) in enumerate(rows) if g == group and j != i]
        match baseline:
            case "none":
                wanted = own
            case "grpo":
                wanted = own - sum(same) / len(same)
            case "rloo":
                wanted = own - sum(others) / len(others) if others else 0.0
        assert found[i] == pytest.approx(wanted, abs=1e-5)


@given(answers)
def test_divided_by_the_deviation_of_its_group(rows: list[tuple[float, int]]) -> None:
    rewards, groups = arrays(rows)
    found = sequence_advantages(rewards, groups, baseline="grpo", divide_by_std=True)
    for i, (own, group) in enumerate(rows):
        same = [r for r, g in rows if g == group]
        mean = sum(same) / len(same)
        std = math.sqrt(sum((r - mean) ** 2 for r in same) / len(same))
        wanted = (own - mean) / std if std > 1e-4 else 0.0
        assert found[i] == pytest.approx(wanted, abs=1e-4)


@given(st.lists(st.tuples(reward, st.integers(0, 9)), max_size=12))
def test_normalised_over_tokens(rows: list[tuple[float, int]]) -> None:
    values = np.asarray([row[0] for row in rows], np.float64)
    lengths = np.asarray([row[1] for row in rows], np.int64)
    tokens = np.repeat(normalise(values, lengths), lengths)
    before = np.repeat(values, lengths)
    if len(before) == 0 or before.std() < 1e-4:
        assert np.allclose(tokens, 0)
    else:
        assert np.allclose(tokens, (before - before.mean()) / before.std())


def batch_of(answers: list[tuple[int, int, float]]) -> Batch:
    """Answers of (tokens, group, reward); prompts of two tokens."""
    return Batch.of(
        [
            Sample(
                rollout_id=i,
                group_id=group,
                prompt_ids=[1, 2],
                response_ids=[3] * length,
                behaviour_logprobs=np.full(length, -0.5, np.float32),
                versions=np.zeros(length, np.int64),
                reward=reward,
            )
            for i, (length, group, reward) in enumerate(answers)
        ]
    )


def test_a_batch_by_hand() -> None:
    batch = batch_of([(1, 7, 1.0), (3, 7, 0.0), (2, 9, 1.0), (2, 9, 1.0)])
    assert "".join(np.where(response_mask(batch), "x", ".")) == "..x..xxx..xx..xx"
    plain = token_advantages(batch, baseline="grpo", normalise_advantages=False)
    assert plain.dtype == np.float32
    assert plain.tolist() == [0, 0, 0.5, 0, 0, -0.5, -0.5, -0.5] + [0.0] * 8
    # Over 8 tokens: one of 0.5, three of -0.5, four of 0: mean -1/8, mean square 1/8.
    mean, std = -1 / 8, math.sqrt(1 / 8 - 1 / 64)
    normal = token_advantages(batch, baseline="grpo", normalise_advantages=True)
    mask = response_mask(batch)
    assert normal[mask] == pytest.approx((plain[mask] - mean) / std)
    assert not normal[~mask].any()


def test_equal_rewards_teach_nothing() -> None:
    batch = batch_of([(1, 1, 0.1), (3, 1, 0.1), (2, 2, 0.1)])
    for baseline in BASELINES[:2]:
        found = token_advantages(
            batch,
            baseline=baseline,
            normalise_advantages=True,
        )
        assert not found.any()


def test_the_order_of_answers_does_not_matter() -> None:
    rows = [(1, 1, 0.0), (4, 2, 1.0), (2, 1, 1.0), (3, 2, 0.0), (5, 3, 1.0)]
    order = [3, 0, 4, 2, 1]
    one, other = batch_of(rows), batch_of([rows[i] for i in order])
    options = {"baseline": "rloo", "normalise_advantages": True}
    first = np.split(token_advantages(one, **options), np.cumsum(one.lengths))  # type: ignore[arg-type]
    second = np.split(token_advantages(other, **options), np.cumsum(other.lengths))  # type: ignore[arg-type]
    for place, i in enumerate(order):
        assert second[place] == pytest.approx(first[i])


def test_bad_input_is_named() -> None:
    rewards, groups = np.ones(2, np.float32), np.zeros(2, np.int64)
    with pytest.raises(ValueError, match="baseline: 'mean' is not one of grpo, rloo, none"):
        sequence_advantages(rewards, groups, baseline="mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="divide_by_std: not with baseline 'rloo'"):
        sequence_advantages(rewards, groups, baseline="rloo", divide_by_std=True)
    with pytest.raises(ValueError, match=r"group_ids: shape \(1,\), rewards have \(2,\)"):
        sequence_advantages(rewards, groups[:1], baseline="grpo")
    with pytest.raises(ValueError, match="rewards: number 1 is nan"):
        sequence_advantages(np.asarray([1, np.nan], np.float32), groups, baseline="none")
    with pytest.raises(ValueError, match=r"weights: shape \(1,\), advantages have \(2,\)"):
        normalise(np.ones(2), np.ones(1, np.int64))
