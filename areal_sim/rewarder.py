"""Reward workers: a queue, first come first served, with service times."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush, heapreplace

from areal_sim.alarm import Alarm
from areal_sim.clock import Clock


class Rewarder:
    """So many workers, each busy for one service time per trajectory.

    A worker is free again when it is done, so a trajectory's end is known when it comes; nothing
    waits in SimPy but the next end.

    Args:
        env: the simulation.
        workers: how many rewards are computed at a time.
        service_ns: takes nothing, gives the next trajectory's service time in nanoseconds.
        computed: called with each rollout id when its reward is there.
        end_instant: called after all of one instant.

    Attributes:
        computed: as given; a fault puts another in its place for a while.
    """

    def __init__(
        self,
        env: Clock,
        workers: int,
        service_ns: Callable[[], int],
        computed: Callable[[int], None],
        end_instant: Callable[[], None],
    ) -> None:
        self._env = env
        self._service_ns = service_ns
        self.computed = computed
        self._end_instant = end_instant
        self._free_ns = [0] * workers  # a heap: when each worker is free again
        self._due: list[tuple[int, int, int]] = []  # a heap: end, order, rollout
        self._order = 0
        self._alarm = Alarm(env, self._ring)

    def submit(self, rollout_id: int) -> None:
        """Queue a finished rollout; a service time of 0 with a free worker answers at once."""
        now_ns = self._env._now
        free_ns = self._free_ns
        begin_ns = free_ns[0]
        if begin_ns < now_ns:
            begin_ns = now_ns
        end_ns = begin_ns + self._service_ns()
        heapreplace(free_ns, end_ns)
        if end_ns == now_ns:
            self.computed(rollout_id)
            return
        self._order = order = self._order + 1
        entry = (end_ns, order, rollout_id)
        due = self._due
        heappush(due, entry)
        if due[0] is entry:
            self._alarm.at(end_ns)

    def _ring(self) -> None:
        due = self._due
        now_ns = self._env._now
        while due and due[0][0] <= now_ns:
            self.computed(heappop(due)[2])
        if due:
            self._alarm.at(due[0][0])
        self._end_instant()
