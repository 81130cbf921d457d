"""Weight loads that slow each other down: servers share a sender's link, a file system, a machine.

While n servers load, each goes on at 1 / (1 + (n - 1) * share) of the speed it has alone. So n
loads that begin together take ``load_s + (n - 1) * load_shared_s`` each: share is their ratio.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from areal_sched.ids import ServerId
from areal_sim.alarm import Alarm
from areal_sim.clock import Clock


@dataclass(slots=True, eq=False)
class _Load:
    clock: Clock
    alarm: Alarm
    left_ns: float  # of work, at full speed
    since_ns: int  # on its clock, when so much was left


class SharedLoads:
    """The loads in progress.

    Args:
        share: what one more load adds to the time of each, as a share of the time alone.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._loads: dict[ServerId, _Load] = {}

    def begin(
        self, server_id: ServerId, clock: Clock, work_ns: int, done: Callable[[], None]
    ) -> None:
        """A server begins to load.

        Args:
            server_id: that loads nothing yet.
            clock: its own.
            work_ns: what it takes alone.
            done: called when it has loaded.
        """
        alarm = Alarm(clock, lambda: self._over(server_id, done))
        self._catch_up()
        self._loads[server_id] = _Load(clock, alarm, float(work_ns), clock.now)
        self._set_alarms()

    def give_up(self, server_id: ServerId) -> None:
        """A server is lost; what it was loading, if anything, disturbs nobody any more."""
        if server_id in self._loads:
            self._catch_up()
            self._loads.pop(server_id).alarm.off()
            self._set_alarms()

    def _over(self, server_id: ServerId, done: Callable[[], None]) -> None:
        self._catch_up()
        del self._loads[server_id]
        self._set_alarms()
        done()

    @property
    def _speed(self) -> float:
        return 1 / (1 + (len(self._loads) - 1) * self._share)

    def _catch_up(self) -> None:
        for load in self._loads.values():
            now_ns = load.clock.now
            load.left_ns -= (now_ns - load.since_ns) * self._speed
            load.since_ns = now_ns

    def _set_alarms(self) -> None:
        for load in self._loads.values():
            # Less a rounding error: a load of whole nanoseconds takes no nanosecond more.
            left_ns = math.ceil(max(load.left_ns, 0.0) / self._speed - 1e-3)
            load.alarm.at(load.since_ns + left_ns)
