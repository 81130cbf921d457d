from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from traces import (
    PRESETS,
    GroupBatch,
    LogNormalGroups,
    LogNormalPrompts,
    Mixture,
    SyntheticWorkload,
    constant,
    constant_prompts,
    preset,
    tabulate,
    validate,
)
from traces.lengths import student_t, unit_variance_scale
from traces.presets import AREAL_MAX_PROMPT_TOKENS, AREAL_MAX_RESPONSE_TOKENS
from traces.source import BLOCK_GROUPS

MODEL = LogNormalGroups(mu=9.07, sigma_between=0.48, sigma_within=0.44)
UNCLIPPED = 10**12


def workload(model: LogNormalGroups | Mixture = MODEL, **changes: int) -> SyntheticWorkload:
    fields = {"seed": 1, "max_response_tokens": 27_648, "max_prompt_tokens": 1_024} | changes
    return SyntheticWorkload(model, LogNormalPrompts(mu=4.7, sigma=0.6), **fields)


def assert_equal(one: GroupBatch, other: GroupBatch) -> None:
    np.testing.assert_array_equal(one.prompt_tokens, other.prompt_tokens)
    np.testing.assert_array_equal(one.response_tokens, other.response_tokens)


MIXTURE = Mixture((MODEL, LogNormalGroups(7.0, 0.2, 0.3)), (0.4, 0.6))
MODELS = st.sampled_from([MODEL, MIXTURE, replace(MODEL, degrees_of_freedom=math.inf)])


@given(
    model=MODELS,
    seed=st.integers(0, 2**64 - 1),
    first=st.integers(0, 2**40),
    cuts=st.lists(st.integers(0, 40 * BLOCK_GROUPS), min_size=3, max_size=6).map(sorted),
    group_size=st.integers(1, 5),
)
def test_how_requests_are_cut_makes_no_difference(
    model: LogNormalGroups | Mixture, seed: int, first: int, cuts: list[int], group_size: int
) -> None:
    source = workload(model, seed=seed)

    def ask(start: int, stop: int) -> GroupBatch:
        return source.groups(first + start, stop - start, group_size=group_size, step=2.0)

    whole = ask(cuts[0], cuts[-1])
    parts = [ask(start, stop) for start, stop in itertools.pairwise(cuts)]
    assert_equal(
        whole,
        GroupBatch(
            np.concatenate([part.prompt_tokens for part in parts]),
            np.concatenate([part.response_tokens for part in parts]),
        ),
    )
    assert whole.prompt_tokens.shape == (cuts[-1] - cuts[0],)
    assert whole.response_tokens.shape == (cuts[-1] - cuts[0], group_size)
    assert whole.prompt_tokens.dtype == whole.response_tokens.dtype == np.int64


@given(model=MODELS, first=st.integers(0, 1000), small=st.integers(1, 4), more=st.integers(0, 9))
def test_a_sample_does_not_depend_on_the_size_of_its_group(
    model: LogNormalGroups | Mixture, first: int, small: int, more: int
) -> None:
    few = workload(model).groups(first, 70, group_size=small, step=0.0)
    many = workload(model).groups(first, 70, group_size=small + more, step=0.0)
    np.testing.assert_array_equal(few.prompt_tokens, many.prompt_tokens)
    np.testing.assert_array_equal(few.response_tokens, many.response_tokens[:, :small])


def test_values_are_the_same_on_every_machine_and_day() -> None:
    batch = workload(seed=7).groups(62, 4, group_size=3, step=0.0)
    assert batch.prompt_tokens.tolist() == [153, 74, 144, 60]
    assert batch.response_tokens.tolist() == [
        [6461, 4684, 5108],
        [6496, 18949, 10459],
        [7175, 5254, 14838],
        [4054, 7641, 13542],
    ]


def test_another_seed_gives_other_groups() -> None:
    one, other = (workload(seed=seed).groups(0, 50, group_size=8, step=0.0) for seed in (1, 2))
    assert np.mean(one.response_tokens == other.response_tokens) < 0.01


def test_blocks_do_not_repeat_each_other() -> None:
    responses = workload().groups(0, 200 * BLOCK_GROUPS, group_size=2, step=0.0).response_tokens
    logs = np.log(responses[:, 0]).reshape(200, BLOCK_GROUPS)
    correlation = np.corrcoef(logs)
    assert np.abs(correlation[~np.eye(200, dtype=bool)]).max() < 0.65  # sd 1/8, 19900 pairs


@pytest.mark.parametrize("freedom", [2.5, 8.0, 30.0, math.inf])
def test_student_t_has_its_distribution(freedom: float) -> None:
    radius, angle = np.random.default_rng(3).random((2, 200_000))
    numbers = student_t(radius, angle, freedom)
    reference = stats.norm() if math.isinf(freedom) else stats.t(freedom)
    assert stats.kstest(numbers, reference.cdf).pvalue > 0.01
    if freedom > 4:
        assert np.std(numbers) * unit_variance_scale(freedom) == pytest.approx(1, abs=0.01)


def test_student_t_stays_finite_at_the_edges_of_the_uniform_numbers() -> None:
    edges = np.array([0.0, 1.0 - 2.0**-53])
    for freedom in (2.1, 8.0, math.inf):
        assert np.all(np.isfinite(student_t(edges, np.zeros(2), freedom)))


def test_moments_without_clipping() -> None:
    source = workload(max_response_tokens=UNCLIPPED)
    logs = np.log(source.groups(0, 40_000, group_size=8, step=0.0).response_tokens)
    means = logs.mean(axis=1)
    within = logs.var(axis=1, ddof=1).mean()
    between = means.var(ddof=1) - within / 8
    assert logs.mean() == pytest.approx(9.07, abs=0.01)
    assert math.sqrt(within) == pytest.approx(0.44, abs=0.005)
    assert math.sqrt(between) == pytest.approx(0.48, abs=0.008)
    assert between / (between + within) == pytest.approx(MODEL.intra_class_correlation, abs=0.01)
    # Student-t with 8 degrees of freedom has an excess kurtosis of 6 / (8 - 4).
    residuals = (logs - means[:, None]) * math.sqrt(8 / 7)
    assert 0.7 < stats.kurtosis(residuals.ravel()) < 1.5  # 1.5, less what the means take away


@pytest.mark.parametrize(
    ("name", "step", "mean", "truncated_below"),
    [
        ("math-7b-boba", 0.0, 10_400, 0.05),
        ("math-1.5b-boba", 0.0, 14_300, 0.15),
        ("math-1.5b-deepscaler", 0.0, 8_750, 0.06),
        ("math-1.5b-deepscaler", 432.0, 7_270, 0.04),
        ("math-1.5b-deepscaler", 10_000.0, 7_270, 0.04),
        ("math-1.5b-deepscaler-after-rl", 0.0, 7_070, 0.03),
        ("code-14b", 0.0, 10_400, 0.06),
        ("code-32b", 0.0, 9_700, 0.05),
    ],
)
def test_presets_have_their_clipped_mean(
    name: str, step: float, mean: float, truncated_below: float
) -> None:
    entry = preset(name)
    source = SyntheticWorkload(
        entry.model, entry.prompt_model, 5, AREAL_MAX_RESPONSE_TOKENS, AREAL_MAX_PROMPT_TOKENS
    )
    batch = source.groups(0, 40_000, group_size=4, step=step)
    assert batch.response_tokens.mean() == pytest.approx(mean, rel=0.01)
    assert np.mean(batch.response_tokens == AREAL_MAX_RESPONSE_TOKENS) < truncated_below
    assert batch.response_tokens.min() >= 1
    assert batch.prompt_tokens.min() >= 1
    assert batch.prompt_tokens.max() <= AREAL_MAX_PROMPT_TOKENS


def test_deepscaler_starts_with_the_mean_under_its_first_limit() -> None:
    """The published curve starts near 5,750 tokens under the 8k limit."""
    source = workload(preset("math-1.5b-deepscaler").model, max_response_tokens=8_192)  # type: ignore[arg-type]
    mean = source.groups(0, 40_000, group_size=4, step=0.0).response_tokens.mean()
    assert mean == pytest.approx(5_750, rel=0.02)


def test_math_groups_have_the_measured_spread() -> None:
    """Max over mean of 16 answers: median 1.9 to 2.2, 90th percentile 2.7 to 4.3 as measured."""
    responses = (
        workload(preset("math-1.5b-deepscaler").model)  # type: ignore[arg-type]
        .groups(0, 5_000, group_size=16, step=0.0)
        .response_tokens
    )
    spread = responses.max(axis=1) / responses.mean(axis=1)
    assert 1.9 < np.median(spread) < 2.2
    assert 2.7 < np.quantile(spread, 0.9) < 4.3


def test_every_preset_says_where_it_comes_from() -> None:
    for name, entry in PRESETS.items():
        assert entry.name == name
        assert len(entry.source) > 20
        assert len(entry.basis) > 20
    with pytest.raises(ValueError, match="'math-7b'; there are: math-7b-boba, "):
        preset("math-7b")


def test_a_mixture_puts_each_prompt_into_one_component() -> None:
    mixture = Mixture((constant(100), constant(2_000), constant(9)), (0.5, 0.3, 0.2))
    responses = workload(mixture).groups(0, 20_000, group_size=3, step=0.0).response_tokens
    assert np.all(responses == responses[:, :1])
    for tokens, weight in ((100, 0.5), (2_000, 0.3), (9, 0.2)):
        assert np.mean(responses[:, 0] == tokens) == pytest.approx(weight, abs=0.012)


@given(tokens=st.integers(1, 2**31 - 1), seed=st.integers(0, 9))
def test_constant_means_constant(tokens: int, seed: int) -> None:
    source = SyntheticWorkload(constant(tokens), constant_prompts(tokens), seed, 2**31, 2**31)
    batch = source.groups(3, 2, group_size=2, step=9.0)
    assert np.all(batch.response_tokens == tokens)
    assert np.all(batch.prompt_tokens == tokens)


def test_mu_drifts_in_a_line_or_along_knots() -> None:
    line = LogNormalGroups(9.0, 0.1, 0.1, drift_per_step=-0.01)
    knots = LogNormalGroups(9.0, 0.1, 0.1, mu_knots=((10.0, 9.0), (20.0, 8.0), (40.0, 8.5)))
    assert [line.mu_at(step) for step in (0, 10)] == pytest.approx([9.0, 8.9])
    expected = {0: 9.0, 10: 9.0, 15: 8.5, 20: 8.0, 30: 8.25, 40: 8.5, 99: 8.5}
    assert {step: knots.mu_at(step) for step in expected} == pytest.approx(expected)
    early, late = (
        workload(knots).groups(0, 2_000, group_size=4, step=step).response_tokens
        for step in (0.0, 20.0)
    )
    assert np.log(early / late).mean() == pytest.approx(1.0, abs=0.001)
    mixture = Mixture((line, replace(MODEL, mu=3.0)), (0.5, 0.5))
    mus = mixture.parameters(np.array([0.2, 0.8]), 10.0).mu
    assert mus == pytest.approx(np.array([8.9, 3.0]))


def test_extreme_models_are_clipped_and_do_not_overflow() -> None:
    for mu in (-5_000.0, 5_000.0):
        source = workload(LogNormalGroups(mu, 30.0, 30.0))
        responses = source.groups(0, 500, group_size=4, step=0.0).response_tokens
        assert set(responses.ravel().tolist()) == ({1} if mu < 0 else {27_648})


def test_tabulate_gives_a_workload_of_these_groups() -> None:
    table = tabulate(workload(), count=5, group_size=3, first_group=100)
    batch = workload().groups(100, 5, group_size=3, step=0.0)
    validate(table)
    assert table["group_id"].tolist() == [g for g in range(100, 105) for _ in range(3)]
    assert table["sample_index"].tolist() == [0, 1, 2] * 5
    assert table["response_tokens"].tolist() == batch.response_tokens.ravel().tolist()
    assert table["prompt_tokens"].tolist()[::3] == batch.prompt_tokens.tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(MODEL, mu=math.nan), "mu must be finite, got nan"),
        (lambda: replace(MODEL, sigma_within=-0.1), "sigma_within must be finite and at least 0"),
        (lambda: replace(MODEL, sigma_between=math.inf), "sigma_between must be finite and"),
        (lambda: replace(MODEL, drift_per_step=math.inf), "drift_per_step must be finite"),
        (lambda: replace(MODEL, degrees_of_freedom=2.0), "degrees_of_freedom must be above 2"),
        (lambda: replace(MODEL, degrees_of_freedom=math.nan), "degrees_of_freedom must be above 2"),
        (
            lambda: replace(MODEL, mu_knots=((0.0, 9.07),), drift_per_step=1.0),
            "drift_per_step or mu_knots, not both",
        ),
        (lambda: replace(MODEL, mu_knots=((0.0, 9.0),)), "the first of mu_knots must have mu"),
        (
            lambda: replace(MODEL, mu_knots=((1.0, 9.07), (1.0, 9.0))),
            "the steps of mu_knots must increase",
        ),
        (lambda: replace(MODEL, mu_knots=((0.0, math.nan),)), "mu_knots must be finite"),
        (lambda: Mixture((), ()), "0 components and 0 weights"),
        (lambda: Mixture((MODEL,), (0.5, 0.5)), "1 components and 2 weights"),
        (lambda: Mixture((MODEL, MODEL), (0.5, 0.6)), "add up to 1"),
        (lambda: Mixture((MODEL, MODEL), (1.5, -0.5)), "weights must be above 0"),
        (
            lambda: Mixture((MODEL, replace(MODEL, degrees_of_freedom=5.0)), (0.5, 0.5)),
            "the same degrees_of_freedom",
        ),
        (lambda: LogNormalPrompts(math.inf, 1.0), "mu must be finite"),
        (lambda: LogNormalPrompts(1.0, -1.0), "sigma must be finite and at least 0"),
        (lambda: constant(0), "tokens must be at least 1, got 0"),
        (lambda: workload(seed=-1), "seed must be from 0"),
        (lambda: workload(seed=2**64), "seed must be from 0"),
        (lambda: workload(max_response_tokens=0), "max_response_tokens must be at least 1"),
        (lambda: workload(max_prompt_tokens=0), "max_prompt_tokens must be at least 1"),
    ],
)
def test_bad_parameters_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("first", "count", "size", "step", "message"),
    [
        (-1, 1, 1, 0.0, "first_group must be at least 0, got -1"),
        (0, -1, 1, 0.0, "count must be at least 0, got -1"),
        (0, 1, 0, 0.0, "group_size must be at least 1, got 0"),
        (0, 1, 1, -1.0, "step must be a finite number of at least 0, got -1"),
        (0, 1, 1, math.nan, "step must be a finite number"),
    ],
)
def test_bad_requests_are_named(
    first: int, count: int, size: int, step: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        workload().groups(first, count, group_size=size, step=step)
