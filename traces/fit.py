"""Fit length models to the responses of a workload table.

Responses at a limit are censored: all that is known is that they would have been at least as
long. Both fits are maximum likelihood with that taken into account; leaving it out would make
long workloads look shorter and more regular than they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from traces.lengths import LogNormalGroups, Mixture, unit_variance_scale
from traces.schema import validate
from traces.simplex import minimise
from traces.source import Floats

if TYPE_CHECKING:
    import pandas as pd

_NODES: Final = 15
"""Quadrature points per prompt, placed around that prompt's own mean."""
_NODE_SPREAD: Final = 1.3
"""The points cover this many times the posterior's width, which heavy tails make wider."""
_MAX_LOGIT: Final = 12.0
_MIN_SIGMA: Final = 1e-3
_TABLE_END: Final = 60.0
_TABLE_POINTS: Final = 24_001


@dataclass(frozen=True, slots=True)
class VarianceComponents:
    """Variance of log tokens, between and within prompts.

    Attributes:
        mu: mean of log tokens over the prompts' responses.
        between: variance of the prompts' means, at least 0.
        within: variance within a prompt.
    """

    mu: float
    between: float
    within: float

    @property
    def intra_class_correlation(self) -> float:
        """Share of the variance that lies between prompts; NaN where there is no variance."""
        total = self.between + self.within
        return self.between / total if total else math.nan


@dataclass(frozen=True, slots=True)
class GroupFit:
    """A fitted `LogNormalGroups`.

    Attributes:
        model: the fitted model; it does not drift.
        log_likelihood: of the logarithms of the lengths, natural logarithm.
        prompt_count: prompts it was fitted to.
        response_count: responses it was fitted to.
        censored_count: those among them at the limit.
    """

    model: LogNormalGroups
    log_likelihood: float
    prompt_count: int
    response_count: int
    censored_count: int

    @property
    def intra_class_correlation(self) -> float:
        """Correlation of log tokens of two responses to one prompt."""
        return self.model.intra_class_correlation


def variance_components(table: pd.DataFrame) -> VarianceComponents:
    """Return moments of log tokens: one-way analysis of variance, prompts of unequal size.

    Biased where responses were cut off at a limit; see `fit_log_normal_groups`.

    Raises:
        TraceError: the table is not a workload.
        ValueError: fewer than two prompts, or none with two responses.
    """
    log_tokens, starts = _by_prompt(validate(table))
    return _components(log_tokens, starts)


def fit_log_normal_groups(
    table: pd.DataFrame,
    *,
    cap_tokens: int | None = None,
    degrees_of_freedom: float = 8.0,
    intra_class_correlation: float | None = None,
) -> GroupFit:
    """Fit the random-effects model of `traces.lengths` by censored maximum likelihood.

    The effect of a prompt is integrated out by adaptive Gauss-Hermite quadrature; the three
    parameters are found with `traces.simplex.minimise`.

    Args:
        table: a workload; all groups of a prompt count together.
        cap_tokens: responses of at least this length are censored; None means that none are.
        degrees_of_freedom: of the Student-t within a prompt, above 2; not fitted.
        intra_class_correlation: in [0, 1), to impose it; needed where no prompt has two
            responses.

    Raises:
        TraceError: the table is not a workload.
        ValueError: an argument is out of range, the table does not determine the parameters (one
            prompt, no repeated prompt, one length, all censored), or there is no convergence.
    """
    LogNormalGroups(0.0, 1.0, 1.0, degrees_of_freedom)  # checks the degrees of freedom
    share = intra_class_correlation
    if share is not None and not 0 <= share < 1:
        raise ValueError(f"intra_class_correlation must be in [0, 1), got {share}")
    log_tokens, starts = _by_prompt(validate(table))
    censored = _censored(log_tokens, cap_tokens)
    if share is None:
        start = _components(log_tokens, starts)
        start_share = min(max(start.intra_class_correlation, 0.05), 0.95)
        start_mu, start_sigma = start.mu, math.sqrt(start.between + start.within)
    else:
        start_share, start_mu, start_sigma = share, log_tokens.mean(), log_tokens.std()
    observations = _Observations(log_tokens, starts, censored, degrees_of_freedom)

    def unpack(point: Floats) -> tuple[float, float, float]:
        sigma = math.exp(point[1])
        part = start_share if share is not None else _logistic(point[2])
        return float(point[0]), sigma * math.sqrt(part), sigma * math.sqrt(1.0 - part)

    first = [start_mu, math.log(max(start_sigma, _MIN_SIGMA))]
    if share is None:
        first.append(math.log(start_share / (1.0 - start_share)))
    best, value = minimise(
        lambda point: -observations.log_likelihood(*unpack(point)), np.array(first)
    )
    mu, between, within = unpack(best)
    return GroupFit(
        model=LogNormalGroups(mu, between, within, degrees_of_freedom),
        log_likelihood=-value,
        prompt_count=len(starts),
        response_count=len(log_tokens),
        censored_count=int(censored.sum()),
    )


def fit_mixture(
    table: pd.DataFrame, *, intra_class_correlation: float, cap_tokens: int | None = None
) -> Mixture:
    """Fit two lognormal components to the lengths alone, by censored maximum likelihood.

    For workloads whose prompts were not recorded: which responses share a prompt is not looked
    at, and how each component's variance splits between and within prompts is imposed. The
    component with the lower mu comes first.

    Args:
        table: a workload.
        intra_class_correlation: in [0, 1), imposed on both components.
        cap_tokens: responses of at least this length are censored; None means that none are.

    Raises:
        TraceError: the table is not a workload.
        ValueError: an argument is out of range, all responses have one length or are censored, or
            there is no convergence.
    """
    share = intra_class_correlation
    if not 0 <= share < 1:
        raise ValueError(f"intra_class_correlation must be in [0, 1), got {share}")
    log_tokens, _ = _by_prompt(validate(table))
    censored = _censored(log_tokens, cap_tokens)
    density = _ResidualDensity(math.inf)

    def unpack(point: Floats) -> tuple[float, tuple[tuple[float, float], ...]]:
        parts = ((float(point[1]), math.exp(point[2])), (float(point[3]), math.exp(point[4])))
        return _logistic(point[0]), parts

    def negative_log_likelihood(point: Floats) -> float:
        weight, ((mu_a, sigma_a), (mu_b, sigma_b)) = unpack(point)
        log_a = math.log(weight) + density.log(log_tokens - mu_a, sigma_a, censored)
        log_b = math.log1p(-weight) + density.log(log_tokens - mu_b, sigma_b, censored)
        return -float(np.logaddexp(log_a, log_b).sum())

    low, high = np.quantile(log_tokens, (0.3, 0.85))
    log_sigma = math.log(max(0.6 * float(log_tokens.std()), _MIN_SIGMA))
    best, _ = minimise(negative_log_likelihood, np.array([0.0, low, log_sigma, high, log_sigma]))
    weight, parts = unpack(best)
    fitted = sorted(
        ((mu, sigma, part) for (mu, sigma), part in zip(parts, (weight, 1 - weight), strict=True))
    )
    return Mixture(
        components=tuple(
            LogNormalGroups(mu, sigma * math.sqrt(share), sigma * math.sqrt(1.0 - share))
            for mu, sigma, _ in fitted
        ),
        weights=tuple(part for _, _, part in fitted),
    )


class _ResidualDensity:
    """Logarithm of density and survival of ``e``: Student-t scaled to a given deviation."""

    def __init__(self, degrees_of_freedom: float) -> None:
        self._freedom = degrees_of_freedom
        self._scale = unit_variance_scale(degrees_of_freedom)
        if math.isinf(degrees_of_freedom):
            self._constant = -0.5 * math.log(2.0 * math.pi)
        else:
            self._constant = (
                math.lgamma((degrees_of_freedom + 1.0) / 2.0)
                - math.lgamma(degrees_of_freedom / 2.0)
                - 0.5 * math.log(degrees_of_freedom * math.pi)
            )
        # The survival has no simple closed form for every nu: a table, added up from the right
        # so that small tails keep their digits.
        self._grid = np.linspace(-_TABLE_END, _TABLE_END, _TABLE_POINTS)
        density = np.exp(self._log_density(self._grid))
        steps = 0.5 * (density[1:] + density[:-1]) * (self._grid[1] - self._grid[0])
        beyond = 0.0 if math.isinf(self._freedom) else density[-1] * _TABLE_END / self._freedom
        survival = np.append(np.cumsum(steps[::-1])[::-1], 0.0) + beyond
        self._log_survival = np.log(np.maximum(survival, np.finfo(float).tiny))

    def _log_density(self, scaled: Floats) -> Floats:
        squared = scaled * scaled
        if math.isinf(self._freedom):
            return self._constant - 0.5 * squared
        power = -0.5 * (self._freedom + 1.0)
        log_density: Floats = self._constant + power * np.log1p(squared / self._freedom)
        return log_density

    def log(self, residuals: Floats, sigma: float, censored: NDArray[np.bool_]) -> Floats:
        """Return log density, or log survival where censored; shape of ``residuals``.

        ``censored`` has the shape of the first axis of ``residuals``.
        """
        scaled = residuals / (sigma * self._scale)
        result = self._log_density(scaled) - math.log(sigma * self._scale)
        if censored.any():
            result[censored] = np.interp(scaled[censored], self._grid, self._log_survival)
        return result


class _Observations:
    """Log tokens sorted by prompt, and their likelihood."""

    def __init__(
        self,
        log_tokens: Floats,
        starts: NDArray[np.int64],
        censored: NDArray[np.bool_],
        degrees_of_freedom: float,
    ) -> None:
        self._log_tokens = log_tokens
        self._starts = starts
        self._censored = censored
        self._density = _ResidualDensity(degrees_of_freedom)
        self._sizes = np.diff(np.append(starts, len(log_tokens)))
        self._means = np.add.reduceat(log_tokens, starts) / self._sizes
        self._prompt = np.repeat(np.arange(len(starts)), self._sizes)
        self._nodes, weights = np.polynomial.hermite.hermgauss(_NODES)
        self._log_weights = np.log(weights) + self._nodes**2

    def log_likelihood(self, mu: float, between: float, within: float) -> float:
        """Return the log likelihood of the three parameters, the prompts' effects integrated."""
        between, within = max(between, _MIN_SIGMA), max(within, _MIN_SIGMA)
        # Were e normal and nothing censored, an effect's posterior would have this mean and width.
        shrink = between**2 / (between**2 + within**2 / self._sizes)
        width = (_NODE_SPREAD * math.sqrt(2.0) * between) * np.sqrt(1.0 - shrink)
        effects = (shrink * (self._means - mu))[:, None] + width[:, None] * self._nodes
        residuals = (self._log_tokens - mu)[:, None] - effects[self._prompt]
        given_effect = np.add.reduceat(
            self._density.log(residuals, within, self._censored), self._starts, axis=0
        )
        prior = -0.5 * (effects / between) ** 2 - math.log(between * math.sqrt(2.0 * math.pi))
        terms = given_effect + prior + self._log_weights + np.log(width)[:, None]
        top = terms.max(axis=1)
        total = top + np.log(np.exp(terms - top[:, None]).sum(axis=1))
        return float(total.sum())


def _by_prompt(table: pd.DataFrame) -> tuple[Floats, NDArray[np.int64]]:
    """Return log tokens sorted by prompt, shape (responses,), and where each prompt starts."""
    prompts: NDArray[Any] = table["prompt_id"].to_numpy()
    tokens: NDArray[Any] = table["response_tokens"].to_numpy()
    order = np.argsort(prompts, kind="stable")
    _, starts = np.unique(prompts[order], return_index=True)
    return np.log(tokens[order].astype(np.float64)), starts.astype(np.int64)


def _censored(log_tokens: Floats, cap_tokens: int | None) -> NDArray[np.bool_]:
    if cap_tokens is None:
        censored = np.zeros(len(log_tokens), np.bool_)
    elif cap_tokens < 1:
        raise ValueError(f"cap_tokens must be at least 1, got {cap_tokens}")
    else:
        censored = log_tokens >= math.log(cap_tokens)
        # Beyond the limit only the limit itself is known.
        np.minimum(log_tokens, math.log(cap_tokens), out=log_tokens)
    if censored.all():
        raise ValueError(f"all responses are censored at {cap_tokens} tokens: nothing to fit")
    if np.ptp(log_tokens) == 0:
        raise ValueError("all responses have the same length: use traces.lengths.constant")
    return censored


def _components(log_tokens: Floats, starts: NDArray[np.int64]) -> VarianceComponents:
    responses, prompts = len(log_tokens), len(starts)
    if prompts < 2:
        raise ValueError("one prompt says nothing about the variance between prompts")
    if responses == prompts:
        raise ValueError(
            "no prompt has two responses, which says nothing about the variance within prompts: "
            "give an intra_class_correlation"
        )
    sizes = np.diff(np.append(starts, responses))
    means = np.add.reduceat(log_tokens, starts) / sizes
    mu = float(log_tokens.mean())
    within = float(np.sum((log_tokens - np.repeat(means, sizes)) ** 2)) / (responses - prompts)
    mean_square = float(np.sum(sizes * (means - mu) ** 2)) / (prompts - 1)
    typical_size = (responses - float(np.sum(sizes**2)) / responses) / (prompts - 1)
    return VarianceComponents(mu, max(0.0, (mean_square - within) / typical_size), within)


def _logistic(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-min(max(float(value), -_MAX_LOGIT), _MAX_LOGIT)))
