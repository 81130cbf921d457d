"""SimPy's environment, with time in integer nanoseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simpy.core import Environment

if TYPE_CHECKING:

    class Clock(Environment):
        """An `Environment` whose time is an integer, because all delays are."""

        _now: int  # what `now` returns; read directly where a trajectory asks a dozen times

        def __init__(self) -> None: ...

        @property
        def now(self) -> int:
            """Nanoseconds since the run began."""

else:

    def Clock():
        """Make an environment: no subclass, which would cost SimPy's early binding and 12 %."""
        return Environment(initial_time=0)
