"""The clock of a real run."""

from __future__ import annotations

import time


class RunClock:
    """The run's clock: nanoseconds since `origin_ns` on the machine's monotonic clock.

    Stopped, it shows one time for ever: all accounts of a run end at the same instant.
    """

    def __init__(self, origin_ns: int) -> None:
        self._origin_ns = origin_ns
        self._stopped_ns: int | None = None

    def __call__(self) -> int:
        """The time now."""
        if self._stopped_ns is not None:
            return self._stopped_ns
        return time.monotonic_ns() - self._origin_ns

    def stop(self, at_least_ns: int) -> int:
        """Stop it, not before a time that is on record; returns what it shows."""
        self._stopped_ns = max(self(), at_least_ns)
        return self._stopped_ns
