"""Synthetic prompt and response lengths with fast and slow prompts.

Response lengths follow a random-effects model on the logarithm:

    log L = mu(step) + b_prompt + e,   b ~ N(0, sigma_between^2),   e ~ sigma_within * T

where T is Student-t with ``degrees_of_freedom`` (8 fits long reasoning answers), scaled to unit
variance. L is rounded and clipped to [1, max_response_tokens]. The correlation of two answers to
one prompt, in log L, is sigma_between^2 / (sigma_between^2 + sigma_within^2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from traces.source import (
    Floats,
    GroupBatch,
    check_request,
    check_seed,
    chunks,
)

_SYNTHETIC_STREAM: Final = 1
# Rows of uniform numbers per group: the prompt's length, its mixture component, its b, then its
# responses; a normal or Student-t number takes two.
_PROMPT_ROW: Final = 0
_COMPONENT_ROW: Final = 2
_BETWEEN_ROW: Final = 3
_FIRST_SAMPLE_ROW: Final = 5


@dataclass(frozen=True, slots=True)
class GroupParameters:
    """Parameters of each group, as scalars or of shape (groups,)."""

    mu: float | Floats
    sigma_between: float | Floats
    sigma_within: float | Floats


@runtime_checkable
class LengthModel(Protocol):
    """A distribution of response lengths, correlated within a prompt."""

    @property
    def degrees_of_freedom(self) -> float:
        """Of the Student-t within a prompt; infinite for a normal distribution."""
        ...

    def parameters(self, component: Floats, step: float) -> GroupParameters:
        """Return the parameters of groups at a training step.

        Args:
            component: uniform in [0, 1), shape (groups,); chooses among a mixture's parts.
            step: training step.
        """
        ...


@dataclass(frozen=True, slots=True)
class LogNormalGroups:
    """The model at the head of this module.

    Attributes:
        mu: mean of log tokens, at training step 0.
        sigma_between: standard deviation of the prompts' means of log tokens.
        sigma_within: standard deviation of log tokens within a prompt.
        degrees_of_freedom: above 2; infinity makes ``e`` normal.
        drift_per_step: mu(step) = mu + drift_per_step * step.
        mu_knots: in place of ``drift_per_step``: (step, mu) points, joined by straight lines and
            constant before the first and after the last; the first mu is ``mu``.

    Raises:
        ValueError: a parameter is out of range; names it.
    """

    mu: float
    sigma_between: float
    sigma_within: float
    degrees_of_freedom: float = 8.0
    drift_per_step: float = 0.0
    mu_knots: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        """Check the parameters."""
        for name in ("mu", "sigma_between", "sigma_within", "drift_per_step"):
            value = getattr(self, name)
            if not math.isfinite(value) or (value < 0 and name.startswith("sigma")):
                wanted = "finite" + (" and at least 0" if name.startswith("sigma") else "")
                raise ValueError(f"{name} must be {wanted}, got {value}")
        if not self.degrees_of_freedom > 2:
            raise ValueError(
                "degrees_of_freedom must be above 2 (the variance is infinite below), "
                f"got {self.degrees_of_freedom}"
            )
        if not self.mu_knots:
            return
        if self.drift_per_step:
            raise ValueError("give drift_per_step or mu_knots, not both")
        steps = [step for step, _ in self.mu_knots]
        if not all(math.isfinite(value) for knot in self.mu_knots for value in knot):
            raise ValueError(f"mu_knots must be finite, got {self.mu_knots}")
        if steps != sorted(set(steps)):
            raise ValueError(f"the steps of mu_knots must increase, got {steps}")
        if self.mu_knots[0][1] != self.mu:
            raise ValueError(f"the first of mu_knots must have mu = {self.mu}, got {self.mu_knots}")

    @property
    def sigma(self) -> float:
        """Standard deviation of log tokens over all responses."""
        return math.hypot(self.sigma_between, self.sigma_within)

    @property
    def intra_class_correlation(self) -> float:
        """Correlation of log tokens of two responses to one prompt; NaN where sigma is 0."""
        return self.sigma_between**2 / self.sigma**2 if self.sigma else math.nan

    def mu_at(self, step: float) -> float:
        """Return mu at a training step."""
        if not self.mu_knots:
            return self.mu + self.drift_per_step * step
        steps, values = zip(*self.mu_knots, strict=True)
        return float(np.interp(step, steps, values))

    def parameters(self, component: Floats, step: float) -> GroupParameters:
        """Return the same parameters for every group; see `LengthModel`."""
        return GroupParameters(self.mu_at(step), self.sigma_between, self.sigma_within)


@dataclass(frozen=True, slots=True)
class Mixture:
    """Prompts of several kinds, say easy and hard: each prompt belongs to one component.

    Attributes:
        components: at least one, all with the same degrees of freedom.
        weights: share of the prompts in each component; above 0, adding up to 1.

    Raises:
        ValueError: the two do not fit together.
    """

    components: tuple[LogNormalGroups, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the parts against each other."""
        if not self.components or len(self.components) != len(self.weights):
            raise ValueError(
                f"a mixture needs a weight per component, got {len(self.components)} components "
                f"and {len(self.weights)} weights"
            )
        if not all(weight > 0 for weight in self.weights) or not math.isclose(
            math.fsum(self.weights), 1.0, abs_tol=1e-9
        ):
            raise ValueError(f"weights must be above 0 and add up to 1, got {self.weights}")
        if len({component.degrees_of_freedom for component in self.components}) > 1:
            raise ValueError("the components of a mixture must have the same degrees_of_freedom")

    @property
    def degrees_of_freedom(self) -> float:
        """Shared by the components."""
        return self.components[0].degrees_of_freedom

    def parameters(self, component: Floats, step: float) -> GroupParameters:
        """Return each group's parameters, arrays of shape (groups,); see `LengthModel`."""
        edges = np.cumsum(self.weights)[:-1]
        chosen = np.searchsorted(edges, component, side="right")

        def of_groups(values: list[float]) -> Floats:
            return np.array(values, np.float64)[chosen]

        return GroupParameters(
            of_groups([part.mu_at(step) for part in self.components]),
            of_groups([part.sigma_between for part in self.components]),
            of_groups([part.sigma_within for part in self.components]),
        )


@dataclass(frozen=True, slots=True)
class LogNormalPrompts:
    """Prompt lengths: log P ~ N(mu, sigma^2), rounded and clipped to [1, max_prompt_tokens].

    Raises:
        ValueError: ``mu`` is not finite, or ``sigma`` is not finite and at least 0.
    """

    mu: float
    sigma: float

    def __post_init__(self) -> None:
        """Check the parameters."""
        if not math.isfinite(self.mu):
            raise ValueError(f"mu must be finite, got {self.mu}")
        if not (math.isfinite(self.sigma) and self.sigma >= 0):
            raise ValueError(f"sigma must be finite and at least 0, got {self.sigma}")


def constant(tokens: int) -> LogNormalGroups:
    """Return the model whose every response has ``tokens`` tokens.

    Raises:
        ValueError: ``tokens`` is below 1.
    """
    return LogNormalGroups(mu=_log_tokens(tokens), sigma_between=0.0, sigma_within=0.0)


def constant_prompts(tokens: int) -> LogNormalPrompts:
    """Return the model whose every prompt has ``tokens`` tokens.

    Raises:
        ValueError: ``tokens`` is below 1.
    """
    return LogNormalPrompts(mu=_log_tokens(tokens), sigma=0.0)


@dataclass(frozen=True, slots=True)
class SyntheticWorkload:
    """A `WorkloadSource` that draws from length models.

    Sample i of group g depends only on the seed, g, i and the training step: neither on how the
    requests are cut nor on the group size.

    Attributes:
        model: response lengths.
        prompt_model: prompt lengths.
        seed: from 0 to 2**64 - 1.
        max_response_tokens: responses are clipped here.
        max_prompt_tokens: prompts are clipped here.

    Raises:
        ValueError: the seed or a limit is out of range.
    """

    model: LengthModel
    prompt_model: LogNormalPrompts
    seed: int
    max_response_tokens: int
    max_prompt_tokens: int

    def __post_init__(self) -> None:
        """Check seed and limits."""
        check_seed(self.seed)
        check_limits(self.max_response_tokens, self.max_prompt_tokens)

    def groups(self, first_group: int, count: int, *, group_size: int, step: float) -> GroupBatch:
        """Return token counts of consecutive groups; see `WorkloadSource.groups`."""
        check_request(first_group, count, group_size, step)
        prompt_tokens = np.empty(count, np.int64)
        response_tokens = np.empty((count, group_size), np.int64)
        rows = _FIRST_SAMPLE_ROW + 2 * group_size
        for chunk in chunks(self.seed, _SYNTHETIC_STREAM, first_group, count, rows):
            uniforms = chunk.uniforms
            prompts = self._prompt_tokens(uniforms)
            responses = self._response_tokens(uniforms, step)
            prompt_tokens[chunk.target] = prompts[chunk.wanted]
            response_tokens[chunk.target] = responses[:, chunk.wanted].T
        return GroupBatch(prompt_tokens, response_tokens)

    def _prompt_tokens(self, uniforms: Floats) -> NDArray[np.int64]:
        """Return lengths of shape (groups,)."""
        normal = student_t(uniforms[_PROMPT_ROW], uniforms[_PROMPT_ROW + 1], math.inf)
        log_tokens = self.prompt_model.mu + self.prompt_model.sigma * normal
        return tokens_from_log(log_tokens, self.max_prompt_tokens)

    def _response_tokens(self, uniforms: Floats, step: float) -> NDArray[np.int64]:
        """Return lengths of shape (group_size, groups)."""
        parameters = self.model.parameters(uniforms[_COMPONENT_ROW], step)
        between = student_t(uniforms[_BETWEEN_ROW], uniforms[_BETWEEN_ROW + 1], math.inf)
        freedom = self.model.degrees_of_freedom
        log_tokens = student_t(
            uniforms[_FIRST_SAMPLE_ROW::2], uniforms[_FIRST_SAMPLE_ROW + 1 :: 2], freedom
        )
        log_tokens *= parameters.sigma_within * unit_variance_scale(freedom)
        log_tokens += parameters.mu + parameters.sigma_between * between
        return tokens_from_log(log_tokens, self.max_response_tokens)


def check_limits(max_response_tokens: int, max_prompt_tokens: int) -> None:
    """Raise ValueError where a limit leaves no length possible."""
    if max_response_tokens < 1:
        raise ValueError(f"max_response_tokens must be at least 1, got {max_response_tokens}")
    if max_prompt_tokens < 1:
        raise ValueError(f"max_prompt_tokens must be at least 1, got {max_prompt_tokens}")


def student_t(radius: Floats, angle: Floats, degrees_of_freedom: float) -> Floats:
    """Turn two arrays of uniform numbers in [0, 1) into Student-t numbers of the same shape.

    Bailey's polar method: T = sqrt(nu (U^(-2/nu) - 1)) cos(2 pi V) (Bailey, "Polar generation of
    random variates with the t-distribution", Math. Comp. 62, 1994). At infinite nu it is Box and
    Muller's. Unlike rejection it takes two numbers for each, so any of them can be drawn alone.
    """
    log_radius = np.log1p(-radius)  # 1 - U is never 0
    if math.isinf(degrees_of_freedom):
        squared = -2.0 * log_radius
    else:
        squared = degrees_of_freedom * np.expm1((-2.0 / degrees_of_freedom) * log_radius)
    result: Floats = np.sqrt(squared) * np.cos((2.0 * math.pi) * angle)
    return result


def unit_variance_scale(degrees_of_freedom: float) -> float:
    """Return the factor that gives Student-t numbers a variance of 1."""
    if math.isinf(degrees_of_freedom):
        return 1.0
    return math.sqrt((degrees_of_freedom - 2.0) / degrees_of_freedom)


def tokens_from_log(log_tokens: Floats, max_tokens: int) -> NDArray[np.int64]:
    """Return exp(log_tokens), rounded and clipped to [1, max_tokens]; same shape."""
    # Clipped before exp as well, which could overflow.
    tokens = np.rint(np.exp(np.minimum(log_tokens, math.log(max_tokens) + 1.0)))
    return np.clip(tokens, 1, max_tokens).astype(np.int64)


def _log_tokens(tokens: int) -> float:
    if tokens < 1:
        raise ValueError(f"tokens must be at least 1, got {tokens}")
    return math.log(tokens)
