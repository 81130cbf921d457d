"""Alarms: calls at times that keep changing, many of them for one SimPy event.

A SimPy event costs four calls, and SimPy cannot take one out of its queue. So alarms wait in a heap
of their own, and only the first of them is in SimPy's queue. When it fires, the alarms behind it
ring too, each at its own time, as long as none of SimPy's other events comes first.

An alarm has the place in line that an event of its own would have had: its order number is SimPy's.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, TypeAlias

from simpy.events import NORMAL, Event

if TYPE_CHECKING:
    from areal_sim.clock import Clock

Entry: TypeAlias = tuple[int, int, float, "Alarm"]
"""Time, SimPy's priority, order number, alarm: compares with the entries of SimPy's queue."""


class Agenda:
    """The alarms of one simulation; `areal_sim.clock.Clock` makes it.

    Attributes:
        heap: entries of alarms, also of such as have moved since.
        ringing: whether alarms are being rung: no need to call `arm` meanwhile.
        fired: SimPy events this took so far.
        rung: entries that have come up so far.
        most: how many may yet come up before SimPy is asked again; whoever steps sets it.
    """

    __slots__ = ("_armed", "_env", "fired", "heap", "most", "ringing", "rung")

    def __init__(self, env: Clock) -> None:
        self._env = env
        self._armed: set[float] = set()  # order numbers that have an event in SimPy's queue
        self.heap: list[Entry] = []
        self.ringing = False
        self.fired = 0
        self.rung = 0
        self.most = 1 << 62

    def arm(self) -> None:
        """See that SimPy comes back for the first alarm."""
        time_ns, priority, order, _ = self.heap[0]
        if order in self._armed:
            return
        self._armed.add(order)
        event = Event(self._env)
        # What succeed() does but for queueing.
        event._ok = True
        event._value = order
        event.callbacks = [self._fired]
        # Half a place ahead of the alarm it stands for: never equal to it, and before all that
        # comes after it.
        heappush(self._env._queue, (time_ns, priority, order - 0.5, event))

    def _fired(self, event: Any) -> None:
        self._armed.remove(event._value)
        env, heap, left = self._env, self.heap, self.most
        queue = env._queue
        self.ringing = True
        try:
            while heap and left:
                entry = heap[0]
                if queue and queue[0] < entry:
                    break
                left -= 1
                time_ns, _, _, alarm = heappop(heap)
                # No event of SimPy's is earlier, so its clock may be moved.
                env._now = time_ns
                if alarm.entry is entry:
                    alarm.entry = None
                    wanted_ns = alarm.wanted_ns
                    if wanted_ns > time_ns:
                        alarm.at(wanted_ns)
                    elif wanted_ns >= 0:
                        alarm.ring()
        finally:
            self.ringing = False
            self.fired += 1
            self.rung += self.most - left
            if heap:
                self.arm()


class Alarm:
    """Calls back at a simulated time, in integer nanoseconds.

    One that moves to a later time lets its entry come up and then queues itself again; one that
    moves to an earlier time queues a new entry and ignores the old.

    Args:
        env: the simulation.
        ring: called without arguments; must ask again with `at` for a further call.

    Attributes:
        wanted_ns: when to ring; -1 is never.
        entry: the queued entry that counts.
    """

    __slots__ = ("_agenda", "_heap", "_orders", "entry", "ring", "wanted_ns")

    def __init__(self, env: Clock, ring: Callable[[], None]) -> None:
        self._agenda = env.agenda
        self._heap = env.agenda.heap
        self._orders = env._eid
        self.ring = ring
        self.wanted_ns = -1
        self.entry: Entry | None = None

    def at(self, time_ns: int) -> None:
        """Ring at `time_ns` instead of whatever was asked before."""
        self.wanted_ns = time_ns
        entry = self.entry
        if entry is None or entry[0] > time_ns:
            self.entry = entry = (time_ns, NORMAL, next(self._orders), self)
            heappush(self._heap, entry)
            if not self._agenda.ringing:
                self._agenda.arm()

    def off(self) -> None:
        """Do not ring."""
        self.wanted_ns = -1
