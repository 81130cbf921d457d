"""Robust non-negative least squares, with what the data say of each coefficient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]
"""Of float64, or of whole numbers where they are only multiplied."""

HUBER = 1.345
"""Residuals beyond so many standard deviations count linearly: 95 % efficient where they are normal
(Huber, "Robust Statistics", 1981)."""

MAD_TO_SIGMA = 1.4826
"""Median absolute deviation to standard deviation, for the normal distribution."""

ROUNDS = 30
UNSURE = 0.5
"""A coefficient whose standard error is more than this share of it is not determined."""


@dataclass(frozen=True, slots=True)
class Coefficient:
    """One fitted number.

    Attributes:
        name: what it is; its unit is the suffix.
        value: not negative.
        standard_error: of it; infinite where nothing in the data depends on it.
        determined: the data say what it is: the standard error is at most half of it.
    """

    name: str
    value: float
    standard_error: float
    determined: bool


@dataclass(frozen=True, slots=True)
class Fit:
    """A fit of one phase.

    Attributes:
        phase: what was fitted.
        coefficients: in the order of the design's columns.
        samples: rows.
        tail: by how much the coefficients were scaled up for the totals to agree, less 1.
        median_error: median of |prediction / measurement - 1|.
        explained: share of the variance that the fit explains (R squared); NaN if there is none.
    """

    phase: str
    coefficients: tuple[Coefficient, ...]
    samples: int
    tail: float
    median_error: float
    explained: float

    def __getitem__(self, name: str) -> float:
        """A coefficient's value."""
        for coefficient in self.coefficients:
            if coefficient.name == name:
                return coefficient.value
        raise KeyError(name)


def fit(phase: str, names: Sequence[str], design: Floats, target: Floats, scale: Floats) -> Fit:
    """Fit ``design @ x = target`` with x >= 0, robustly, and scale x until the totals agree.

    Measured times have a long tail to one side: now and then something takes much longer. It
    should not decide how times depend on the work, but it belongs to their sum.

    Args:
        phase: named in the result.
        names: of the columns.
        design: (rows, columns), not negative.
        target: (rows,), above 0.
        scale: (rows,), above 0: residuals are taken to grow in proportion to it.

    Raises:
        ValueError: no rows.
    """
    from scipy.optimize import nnls

    if not len(target):
        raise ValueError(f"{phase}: nothing to fit to")
    used = design.any(axis=0)
    # Columns of like size: counts of tokens and of steps differ by orders of magnitude.
    norms = np.where(used, np.abs(design / scale[:, None]).mean(axis=0), 1.0)
    rows = design / scale[:, None] / norms
    wanted = target / scale
    weights = np.ones(len(target))
    x = np.zeros(design.shape[1])
    for _ in range(ROUNDS):
        before = x
        x, _residual = nnls(rows * weights[:, None], wanted * weights)
        residuals = wanted - rows @ x
        sigma = MAD_TO_SIGMA * float(np.median(np.abs(residuals - np.median(residuals))))
        if sigma == 0 or np.allclose(x, before, rtol=1e-9, atol=0):
            break
        weights = np.sqrt(np.minimum(1.0, HUBER * sigma / np.maximum(np.abs(residuals), 1e-300)))
    errors = _standard_errors(rows, weights, residuals, x)
    total = float((design @ (x / norms)).sum())
    scaled = float(target.sum()) / total if total > 0 else 1.0
    x, errors = x * scaled, errors * scaled
    predicted = design @ (x / norms)
    variance = float(((target - target.mean()) ** 2).sum())
    return Fit(
        phase=phase,
        coefficients=tuple(
            Coefficient(name, value, error, bool(value > 0 and error <= UNSURE * value))
            for name, value, error in zip(
                names, (x / norms).tolist(), (errors / norms).tolist(), strict=True
            )
        ),
        samples=len(target),
        tail=scaled - 1,
        median_error=float(np.median(np.abs(predicted / target - 1))),
        explained=1 - float(((target - predicted) ** 2).sum()) / variance if variance else np.nan,
    )


def _standard_errors(rows: Floats, weights: Floats, residuals: Floats, x: Floats) -> Floats:
    """Of the coefficients above 0, from the weighted normal equations; infinite for the others."""
    errors = np.full(rows.shape[1], np.inf)
    free = np.flatnonzero(x > 0)
    spare = len(rows) - len(free)
    if not len(free) or spare < 1:
        return errors
    weighted = rows[:, free] * weights[:, None]
    variance = float(((residuals * weights) ** 2).sum()) / spare
    covariance = np.linalg.pinv(weighted.T @ weighted) * variance
    errors[free] = np.sqrt(np.maximum(np.diag(covariance), 0))
    return errors
