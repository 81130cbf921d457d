from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, optimize, stats

from traces import (
    LogNormalGroups,
    Mixture,
    SyntheticWorkload,
    constant_prompts,
    fit_log_normal_groups,
    fit_mixture,
    tabulate,
    variance_components,
)
from traces.fit import _by_prompt, _components, _Observations, _ResidualDensity
from traces.simplex import minimise

TRUE = LogNormalGroups(mu=9.0, sigma_between=0.5, sigma_within=0.4)


def sample(
    model: LogNormalGroups | Mixture = TRUE,
    *,
    count: int = 800,
    group_size: int = 8,
    cap: int = 10**9,
) -> pd.DataFrame:
    source = SyntheticWorkload(model, constant_prompts(50), 11, cap, 100)
    return tabulate(source, count=count, group_size=group_size)


def assert_close(model: LogNormalGroups, true: LogNormalGroups, tolerance: float) -> None:
    for name in ("mu", "sigma_between", "sigma_within"):
        assert getattr(model, name) == pytest.approx(getattr(true, name), abs=tolerance), name


def test_variance_components_of_a_table_worked_by_hand() -> None:
    """Two prompts, log lengths (1, 3) and (4, 6, 8): MSW 10/3, MSB 19.2, n0 2.4."""
    logs = [1.0, 3.0, 4.0, 6.0, 8.0]
    starts = np.array([0, 2])
    parts = _components(np.array(logs), starts)
    within = (2.0 + 8.0) / 3
    between = ((2 * 2.4**2 + 3 * 1.6**2) - within) / (5 - 13 / 5)
    assert parts.mu == pytest.approx(4.4)
    assert parts.within == pytest.approx(within)
    assert parts.between == pytest.approx(between)
    assert parts.intra_class_correlation == pytest.approx(between / (between + within))


def test_variance_components_of_the_synthetic_model() -> None:
    parts = variance_components(sample(count=4_000))
    assert parts.mu == pytest.approx(TRUE.mu, abs=0.02)
    assert parts.between == pytest.approx(TRUE.sigma_between**2, abs=0.015)
    assert parts.within == pytest.approx(TRUE.sigma_within**2, abs=0.005)


@pytest.mark.parametrize("cap", [None, 16_000, 8_000])
def test_the_fit_finds_the_model_also_behind_a_limit(cap: int | None) -> None:
    table = sample(cap=cap or 10**9)
    fit = fit_log_normal_groups(table, cap_tokens=cap)
    assert_close(fit.model, TRUE, 0.05)
    assert fit.intra_class_correlation == pytest.approx(TRUE.intra_class_correlation, abs=0.05)
    assert (fit.prompt_count, fit.response_count) == (800, 6_400)
    censored = int((table["response_tokens"] >= cap).sum()) if cap else 0
    assert fit.censored_count == censored
    if cap == 8_000:
        assert censored > 0.4 * 6_400
        assert variance_components(table).mu < TRUE.mu - 0.15  # what ignoring the limit costs


def test_nothing_is_learned_from_beyond_the_limit() -> None:
    free, cut = sample(count=50), sample(count=50, cap=9_000)
    assert free["response_tokens"].max() > 20_000
    fits = [fit_log_normal_groups(table, cap_tokens=9_000) for table in (free, cut)]
    assert fits[0] == fits[1]


def test_prompts_of_unequal_size_and_a_normal_residual() -> None:
    model = LogNormalGroups(8.0, 0.3, 0.6, degrees_of_freedom=math.inf)
    table = sample(model, count=900, group_size=9)
    table = table[table["sample_index"] <= table["group_id"] % 9]
    fit = fit_log_normal_groups(table, degrees_of_freedom=math.inf)
    assert_close(fit.model, model, 0.05)
    assert fit.model.degrees_of_freedom == math.inf


def test_a_prompt_without_repetition_needs_the_correlation() -> None:
    table = sample(group_size=1)
    with pytest.raises(ValueError, match="give an intra_class_correlation"):
        fit_log_normal_groups(table)
    fit = fit_log_normal_groups(table, intra_class_correlation=0.6)
    assert fit.intra_class_correlation == pytest.approx(0.6)
    assert fit.model.mu == pytest.approx(TRUE.mu, abs=0.06)
    assert fit.model.sigma == pytest.approx(TRUE.sigma, abs=0.05)


def test_no_variance_between_prompts() -> None:
    fit = fit_log_normal_groups(sample(LogNormalGroups(8.0, 0.0, 0.5), count=300))
    assert fit.intra_class_correlation < 0.02
    assert fit.model.sigma_within == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("freedom", [3.0, 8.0, math.inf])
@pytest.mark.parametrize("cap", [None, 9.2])
def test_the_likelihood_against_adaptive_integration(freedom: float, cap: float | None) -> None:
    table = sample(count=6, group_size=3)
    logs, starts = _by_prompt(table)
    censored = logs >= (cap or math.inf)
    logs = np.minimum(logs, cap or math.inf)
    assert censored.any() == (cap is not None)
    scale = 1.0 if math.isinf(freedom) else math.sqrt((freedom - 2) / freedom)
    residual = stats.norm() if math.isinf(freedom) else stats.t(freedom)
    mu, between, within = 8.9, 0.6, 0.45
    total = 0.0
    for prompt in range(6):
        rows = slice(3 * prompt, 3 * prompt + 3)

        def integrand(effect: float, rows: slice = rows) -> float:
            scaled = (logs[rows] - mu - effect) / (within * scale)
            density = residual.pdf(scaled) / (within * scale)
            each = np.where(censored[rows], residual.sf(scaled), density)
            return float(np.prod(each) * stats.norm.pdf(effect, scale=between))

        value, _ = integrate.quad(integrand, -6, 6, limit=200, epsabs=1e-13)
        total += math.log(value)
    observations = _Observations(logs, starts, censored, freedom)
    assert observations.log_likelihood(mu, between, within) == pytest.approx(total, abs=0.02)


@pytest.mark.parametrize("freedom", [3.0, 8.0, 40.0, math.inf])
def test_the_table_of_survival_agrees_with_scipy(freedom: float) -> None:
    residual = stats.norm() if math.isinf(freedom) else stats.t(freedom)
    scale = 1.0 if math.isinf(freedom) else math.sqrt((freedom - 2) / freedom)
    scaled = np.linspace(-20, 20 if freedom < 30 else 6, 977)
    everything = np.ones(len(scaled), dtype=np.bool_)
    found = _ResidualDensity(freedom).log(scaled * 0.4 * scale, 0.4, everything)
    np.testing.assert_allclose(found, residual.logsf(scaled), atol=2e-4, rtol=2e-5)
    found = _ResidualDensity(freedom).log(scaled * 0.4 * scale, 0.4, ~everything)
    np.testing.assert_allclose(found, residual.logpdf(scaled) - math.log(0.4 * scale), atol=1e-9)


@pytest.mark.parametrize("cap", [None, 12_000])
def test_a_mixture_is_taken_apart(cap: int | None) -> None:
    true = Mixture(
        (LogNormalGroups(7.0, 0.3, 0.4, math.inf), LogNormalGroups(9.0, 0.3, 0.4, math.inf)),
        (0.7, 0.3),
    )
    table = sample(true, count=20_000, group_size=1, cap=cap or 10**9)
    fitted = fit_mixture(table, intra_class_correlation=0.36, cap_tokens=cap)
    assert fitted.weights == pytest.approx((0.7, 0.3), abs=0.02)
    for part, expected in zip(fitted.components, true.components, strict=True):
        assert_close(part, expected, 0.04)


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (sample(count=1), {}, "one prompt says nothing"),
        (sample(count=5, cap=10), {}, "same length: use traces.lengths.constant"),
        (sample(count=5, cap=10), {"cap_tokens": 10}, "all responses are censored at 10"),
        (sample(count=5), {"cap_tokens": 0}, "cap_tokens must be at least 1, got 0"),
        (sample(count=5), {"degrees_of_freedom": 2.0}, "degrees_of_freedom must be above 2"),
        (sample(count=5), {"intra_class_correlation": 1.0}, r"must be in \[0, 1\), got 1"),
        (sample(count=5).drop(columns="prompt_id"), {}, "column 'prompt_id': is missing"),
    ],
)
def test_what_cannot_be_fitted_is_said(
    table: pd.DataFrame, options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit_log_normal_groups(table, **options)  # type: ignore[arg-type]


def test_a_mixture_needs_a_correlation_and_lengths_that_differ() -> None:
    with pytest.raises(ValueError, match=r"must be in \[0, 1\), got -0.1"):
        fit_mixture(sample(count=5), intra_class_correlation=-0.1)
    with pytest.raises(ValueError, match="same length"):
        fit_mixture(sample(count=5, cap=10), intra_class_correlation=0.5)


def test_the_simplex_finds_the_bottom_of_a_bent_valley() -> None:
    point, value = minimise(optimize.rosen, np.array([-1.2, 1.0]), tolerance=1e-9)
    assert point == pytest.approx([1.0, 1.0], abs=1e-3)
    assert value < 1e-6


def test_the_simplex_says_when_it_does_not_converge() -> None:
    with pytest.raises(ValueError, match="did not converge in"):
        minimise(lambda point: -float(np.abs(point).sum()), np.array([1.0, 1.0]))
