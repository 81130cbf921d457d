"""A re-armed SimPy event: the cheapest way to be called back at a time that keeps changing.

SimPy cannot take an event out of its queue. So an alarm that moves to a later time lets the queued
event fire and then queues itself again; one that moves to an earlier time queues a new event and
ignores the old. See `benchmarks` for what each costs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simpy.events import NORMAL, Event

from areal_sim.clock import Clock


class Alarm:
    """Calls back at a simulated time, in integer nanoseconds.

    Args:
        env: the simulation.
        ring: called without arguments; must ask again with `at` for a further call.
    """

    __slots__ = ("_callbacks", "_env", "_event", "_queued_ns", "_ring", "_spent", "_wanted_ns")

    def __init__(self, env: Clock, ring: Callable[[], None]) -> None:
        self._env = env
        self._ring = ring
        self._event: Event | None = None  # the queued event that counts
        self._queued_ns = 0
        self._wanted_ns = -1
        self._callbacks: list[Callable[[Any], None]] = [self._fired]
        self._spent = self._new_event()  # one that is in no queue, to be used again

    def at(self, time_ns: int | None) -> None:
        """Ring at `time_ns` instead of whatever was asked before; None: not at all."""
        if time_ns is None:
            self._wanted_ns = -1
            return
        self._wanted_ns = time_ns
        if self._event is None:
            event = self._spent
        elif self._queued_ns > time_ns:
            event = self._new_event()
        else:
            return
        event.callbacks = self._callbacks
        self._event = event
        self._queued_ns = time_ns
        env = self._env
        env.schedule(event, NORMAL, time_ns - env._now)

    def _new_event(self) -> Event:
        # What succeed() does but for queueing; a fired event keeps both and can be queued again.
        event = Event(self._env)
        event._ok = True
        event._value = None
        return event

    def _fired(self, event: Event) -> None:
        if event is not self._event:
            return
        wanted_ns = self._wanted_ns
        self._event = None
        self._spent = event
        if wanted_ns > self._queued_ns:
            self.at(wanted_ns)
        elif wanted_ns >= 0:
            self._wanted_ns = -1
            self._ring()
