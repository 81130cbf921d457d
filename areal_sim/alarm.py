"""A re-armed SimPy event: the cheapest way to be called back at a time that keeps changing.

SimPy cannot take an event out of its queue. So an alarm that moves to a later time lets the queued
event fire and then queues itself again; one that moves to an earlier time queues a new event and
ignores the old. See `benchmarks` for what each costs.
"""

from __future__ import annotations

from collections.abc import Callable

from simpy.events import NORMAL, Event

from areal_sim.clock import Clock


class Alarm:
    """Calls back at a simulated time, in integer nanoseconds.

    Args:
        env: the simulation.
        ring: called without arguments; must ask again with `at` for a further call.
    """

    __slots__ = ("_callbacks", "_env", "_event", "_queued_ns", "_ring", "_wanted_ns")

    def __init__(self, env: Clock, ring: Callable[[], None]) -> None:
        self._env = env
        self._ring = ring
        self._event: Event | None = None  # the queued event that counts
        self._queued_ns = 0
        self._wanted_ns = -1
        self._callbacks = [self._fired]

    def at(self, time_ns: int | None) -> None:
        """Ring at `time_ns` instead of whatever was asked before; None: not at all."""
        if time_ns is None:
            self._wanted_ns = -1
            return
        self._wanted_ns = time_ns
        if self._event is None or self._queued_ns > time_ns:
            self._queue(Event(self._env), time_ns)

    def _queue(self, event: Event, time_ns: int) -> None:
        # What succeed() does, without its checks: the event is known to be fresh or spent.
        event._ok = True
        event._value = None
        event.callbacks = self._callbacks  # type: ignore[assignment]
        self._event = event
        self._queued_ns = time_ns
        env = self._env
        env.schedule(event, NORMAL, time_ns - env.now)

    def _fired(self, event: Event) -> None:
        if event is not self._event:
            return
        wanted_ns = self._wanted_ns
        if wanted_ns > self._env.now:
            self._queue(event, wanted_ns)
            return
        self._event = None
        if wanted_ns >= 0:
            self._wanted_ns = -1
            self._ring()
