"""What this package raises on purpose."""

from __future__ import annotations

from areal_sched.errors import ArealError


class AnalysisError(ArealError, ValueError):
    """A run cannot be analysed: a wrong fact, spans that do not tile, a summary key that lacks.

    The message names the field, server or time, and the value.
    """
