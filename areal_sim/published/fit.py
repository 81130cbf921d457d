"""Fitting the eight numbers to the rows they may be fitted to.

Rows: Table 1's 1.5B and 14B, three systems each, and the six bars of Figure 6a. 7B and 32B, every
other figure, and every ratio between two of those are predictions.

Least squares of log(simulated / published), each over what one could hope to reproduce it within,
with the priors as further residuals: 12 numbers alone would not determine 8 parameters. The
solution is the most probable one; the errors are those of the linearised problem.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from areal_sim.config import RunConfig
from areal_sim.published.calibration import NAMES, PARAMETERS, Values
from areal_sim.published.rows import FIGURE_6A, SYSTEMS, System
from areal_sim.published.systems import config_of, row_of
from areal_sim.published.trainer import Method, train
from areal_sim.sweep import Summary, sweep

FITTED_MODELS = ("1.5b", "14b")
"""Rows of Table 1 that are fitted."""

HOURS_WITHIN = 0.015
"""Table 1 prints three digits, of one run each."""

TFLOPS_WITHIN = 0.05
"""Figure 6a prints four digits, on a workload that it does not describe."""

Steps = dict[System, int]

FIT_STEPS: Steps = {"verl": 3, "sync": 3, "areal": 24}
"""Training steps simulated for a row. Synchronous steps are alike from the first; AReaL's take a
while: 24 give 1 % less than all 250 of the 1.5B run."""

COARSE_STEPS: Steps = {"verl": 3, "sync": 3, "areal": 8}
"""The same for the way from the priors to about where the solution is."""

STEP = 0.04
"""Of log(value), for differences: the simulated hours are not smooth on a smaller scale."""

FITTED_BARS: tuple[Method, ...] = ("algorithm_1", "static")


@dataclass(frozen=True, slots=True)
class Residual:
    """One fitted row: published and simulated, in ``unit``."""

    name: str
    unit: str
    published: float
    simulated: float
    within: float

    @property
    def error(self) -> float:
        """Simulated over published, less one."""
        return self.simulated / self.published - 1


@dataclass(frozen=True, slots=True)
class Fit:
    """``values`` and ``errors`` (one standard error, as a factor) by name; the fitted rows."""

    values: dict[str, float]
    errors: dict[str, float]
    residuals: tuple[Residual, ...]


def hours_of(summary: Summary, steps: int) -> float:
    """Hours of a whole run from one of fewer steps: the others take the steady state's mean."""
    mean_s = float(summary["step_time_s"]["mean"])
    more_s = (steps - int(summary["steps"])) * mean_s
    return float(summary["simulated_hours"]) + more_s / 3600


def fit(
    *,
    cache: Path,
    jobs: int | None = None,
    told: Callable[[str], None] = lambda text: None,
    done: Callable[[int, int], None] | None = None,
) -> Fit:
    """Fit all parameters.

    Args:
        cache: keeps simulations; see `areal_sim.sweep.sweep`.
        jobs: processes at a time.
        told: called with a line about each iteration.
        done: called with simulations done and to do.

    Raises:
        SweepError: a process was killed; see `areal_sim.sweep.sweep`.
    """
    prior = np.log([parameter.prior for parameter in PARAMETERS])
    spread = np.log([parameter.spread for parameter in PARAMETERS])

    def solve(start: np.ndarray, steps: Steps, most: int) -> Any:
        def at(points: Sequence[np.ndarray]) -> list[np.ndarray]:
            """Residuals at several points, simulated together."""
            values = [_values(x) for x in points]
            found = rows_at(values, steps=steps, cache=cache, jobs=jobs, done=done)
            return [
                np.concatenate(
                    [
                        [math.log(row.simulated / row.published) / row.within for row in rows],
                        (x - prior) / spread,
                    ]
                )
                for x, rows in zip(points, found, strict=True)
            ]

        def residuals(x: np.ndarray) -> np.ndarray:
            [result] = at([x])
            told(f"misfit {result @ result:.1f}: " + _text(_values(x)))
            return result

        def jacobian(x: np.ndarray) -> np.ndarray:
            points = [x + STEP * sign * unit for unit in np.eye(len(x)) for sign in (1, -1)]
            found = at(points)
            columns = [(a - b) / (2 * STEP) for a, b in zip(found[::2], found[1::2], strict=True)]
            return np.stack(columns, axis=1)

        return least_squares(
            residuals, start, jac=jacobian, x_scale=spread, xtol=1e-2, ftol=1e-2, max_nfev=most
        )

    coarse = solve(prior, COARSE_STEPS, 8)
    solved = solve(coarse.x, FIT_STEPS, 5)
    slopes = np.asarray(solved.jac, float)
    errors = np.exp(np.sqrt(np.diag(np.linalg.inv(slopes.T @ slopes))))
    values = _values(solved.x)
    [rows] = rows_at([values], steps=FIT_STEPS, cache=cache, jobs=jobs)
    return Fit(
        values=values,
        errors=dict(zip(NAMES, errors.tolist(), strict=True)),
        residuals=tuple(rows),
    )


def rows_at(
    points: Sequence[Values],
    *,
    steps: Steps,
    cache: Path,
    jobs: int | None = None,
    done: Callable[[int, int], None] | None = None,
) -> list[list[Residual]]:
    """The fitted rows, simulated with each set of values for so many steps."""
    configs: dict[str, RunConfig] = {}
    for number, values in enumerate(points):
        for model in FITTED_MODELS:
            for system in SYSTEMS:
                changes = [f"workload.steps={steps[system]}"]
                configs[f"{number} {model} {system}"] = config_of(model, system, changes, values)
    summaries = sweep(configs, cache=cache, jobs=jobs, done=done)
    return [[*_hours(summaries, number), *_bars(values)] for number, values in enumerate(points)]


def _hours(summaries: dict[str, Any], number: int) -> list[Residual]:
    return [
        Residual(
            name=f"table 1, {model}, {system}",
            unit="h",
            published=row_of(model).hours[system],
            simulated=hours_of(summaries[f"{number} {model} {system}"], row_of(model).steps),
            within=HOURS_WITHIN,
        )
        for model in FITTED_MODELS
        for system in SYSTEMS
    ]


def _bars(values: Values) -> list[Residual]:
    return [
        Residual(
            name=f"figure 6a, {case.model}, {method}",
            unit="TFLOP/s per GPU",
            published=case.static if method == "static" else case.dynamic,
            simulated=train(case, method, values).tflops,
            within=TFLOPS_WITHIN,
        )
        for case in FIGURE_6A
        for method in FITTED_BARS
    ]


def _values(x: np.ndarray) -> dict[str, float]:
    # Four digits, as the files hold them, so that what is fitted is what is written.
    return {name: float(f"{value:.4g}") for name, value in zip(NAMES, np.exp(x), strict=True)}


def _text(values: Values) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items())
