"""SimPy's environment, with time in integer nanoseconds and an agenda of alarms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from simpy.core import Environment

from areal_sim.alarm import Agenda

if TYPE_CHECKING:

    class Clock(Environment):
        """An `Environment` whose time is an integer, because all delays are."""

        agenda: Agenda
        _now: int  # what `now` returns; read directly where a trajectory asks a dozen times
        _eid: Iterator[int]  # type: ignore[assignment]  # where events get their order from
        _queue: list[tuple[int, int, float, Any]]  # type: ignore[assignment]

        def __init__(self) -> None: ...

        @property
        def now(self) -> int:
            """Nanoseconds since the run began."""

else:

    def Clock():
        """Make an environment: no subclass, which would cost SimPy's early binding and 12 %."""
        env = Environment(initial_time=0)
        env.agenda = Agenda(env)
        return env
