"""Where the time of a command goes."""

from __future__ import annotations

import time
from collections.abc import Callable

from areal_real.training.pipeline import Told
from areal_sched.measurements import TrainerActivity

OnSpan = Callable[[TrainerActivity, int, int, int, int, int], None]
"""Takes activity, version, start_ns and end_ns (monotonic), waiting_ns, micro_batches."""


class Clock:
    """Cuts the time of one command into phases."""

    def __init__(self, on_span: OnSpan, version: int) -> None:
        self._on_span = on_span
        self._version = version
        self._since_ns = time.monotonic_ns()
        self.spent_ns: dict[str, int] = {}
        self.micro_batches: dict[str, int] = {}

    def lap(self, activity: TrainerActivity, told: Told | None = None) -> None:
        """A phase ends, and the next begins."""
        told = told or Told()
        now_ns = time.monotonic_ns()
        self.spent_ns[activity] = self.spent_ns.get(activity, 0) + now_ns - self._since_ns
        self.micro_batches[activity] = self.micro_batches.get(activity, 0) + told.micro_batches
        self._on_span(
            activity,
            self._version,
            self._since_ns,
            now_ns,
            told.waiting_ns,
            told.micro_batches,
        )
        self._since_ns = now_ns
