"""Minimise a function of a few variables without derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from traces.source import Floats

_MAX_EVALUATIONS_PER_VARIABLE: Final = 300


def minimise(
    function: Callable[[Floats], float],
    start: Floats,
    *,
    size: float = 0.2,
    tolerance: float = 1e-6,
) -> tuple[Floats, float]:
    """Return the minimum found from ``start``, and the function's value there.

    Nelder and Mead's simplex ("A simplex method for function minimization", Computer Journal 7,
    1965) with their coefficients.

    Args:
        function: of a point of shape (variables,).
        start: shape (variables,).
        size: how far the first points are from ``start``, along each axis.
        tolerance: stop when the values at all corners of the simplex are this close, relative to
            their magnitude, and the corners are within its square root.

    Raises:
        ValueError: it did not converge.
    """
    variables = len(start)
    points = np.vstack([start, start + size * np.eye(variables)])
    values = np.array([function(point) for point in points])
    evaluations = len(points)
    while evaluations < _MAX_EVALUATIONS_PER_VARIABLE * variables:
        order = np.argsort(values, kind="stable")
        points, values = points[order], values[order]
        close = values[-1] - values[0] <= tolerance * (abs(values[0]) + tolerance)
        if close and np.abs(points[1:] - points[0]).max() <= np.sqrt(tolerance):
            return points[0], float(values[0])
        centre = points[:-1].mean(axis=0)
        away = centre - points[-1]
        reflected = centre + away
        value = function(reflected)
        evaluations += 1
        if values[0] <= value < values[-2]:
            points[-1], values[-1] = reflected, value
            continue
        if value < values[0]:
            candidate, limit = centre + 2.0 * away, value
        elif value < values[-1]:
            candidate, limit = centre + 0.5 * away, value
        else:
            candidate, limit = centre - 0.5 * away, float(values[-1])
        candidate_value = function(candidate)
        evaluations += 1
        if candidate_value <= limit:
            points[-1], values[-1] = candidate, candidate_value
        elif value < values[0]:
            points[-1], values[-1] = reflected, value
        else:
            points[1:] = points[0] + 0.5 * (points[1:] - points[0])
            values[1:] = [function(point) for point in points[1:]]
            evaluations += variables
    raise ValueError(f"the fit did not converge in {evaluations} evaluations")
