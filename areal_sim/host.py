"""One machine for servers and trainer: where they want more processors than it has, all are slower.

On a cluster with GPUs servers and trainer do not disturb each other and this is not used. A run on
a CPU is another matter. The model, with C processors of which servers want D together and the
trainer, while it works, T: the trainer runs at C / (D + T) of its speed, and servers at (C - T) / D
of theirs (a tenth of C is left to them in any case), or at C / D while the trainer is idle. Where
that is more than 1 it is 1. Servers lose
more than processor sharing would take from them: the trainer has slept between steps, and the
kernel favours whoever has.

Each device has a `LocalClock`, which goes slower when the machine does. The device itself knows of
no other time; only what it reports is translated.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any, cast

from simpy.events import NORMAL, Event, Timeout

from areal_sched.measurements import ServerSpan, TrainerActivity, TrainerSpan
from areal_sched.packing import PackedStep
from areal_sim.alarm import Alarm
from areal_sim.clock import Clock
from areal_sim.costs.protocol import CostProvider
from areal_sim.trainer import Host, Trainer

LEAST_LEFT = 0.1
"""This share of the processors the servers get in any case: no process is starved. A calibration
(`analysis.calibration.host`) takes the same."""


class SharedHost:
    """Tells the clocks of its devices how fast they go.

    Args:
        env: the simulation.
        cores: processors there are.

    Attributes:
        trainer_clock: of the trainer.
    """

    def __init__(self, env: Clock, cores: float) -> None:
        self._env = env
        self._cores = cores
        self._training = 0.0  # processors that the trainer wants just now
        self._demands: dict[object, float] = {}  # of servers
        self._clocks: list[LocalClock] = []
        self._trainer_clock = LocalClock(env, 1.0)

    @property
    def trainer_clock(self) -> Clock:
        """Stands in for the simulation's own."""
        return cast(Clock, self._trainer_clock)

    def new_clock(self) -> Clock:
        """A clock for one server; stands in for the simulation's own."""
        clock = LocalClock(self._env, self._server_speed())
        self._clocks.append(clock)
        return cast(Clock, clock)

    def trains(self, cores: float) -> None:
        """The trainer wants so many processors from now on; 0: it has nothing to do."""
        if self._training != cores:
            self._training = cores
            self._adjust()

    def serves(self, server: object, cores: float) -> None:
        """A server wants so many processors from now on; 0: it has nothing to do."""
        if self._demands.get(server, 0.0) != cores:
            self._demands[server] = cores
            self._adjust()

    def _server_speed(self) -> float:
        wanted = sum(self._demands.values())
        left = max(self._cores - self._training, LEAST_LEFT * self._cores)
        return min(1.0, left / wanted) if wanted else 1.0

    def _adjust(self) -> None:
        speed = self._server_speed()
        for clock in self._clocks:
            clock.go_at(speed)
        wanted = sum(self._demands.values()) + self._training
        self._trainer_clock.go_at(min(1.0, self._cores / wanted) if wanted else 1.0)


class LocalClock:
    """A device's time, in integer nanoseconds; has what devices use of `areal_sim.clock.Clock`.

    It shows exactly the time that an alarm or event was set for when it comes.

    Attributes:
        agenda: itself: alarms set by this clock are kept here.
        heap: (time, priority, order, alarm or event) that are to come, on this clock.
        ringing: whether they are being carried out.
    """

    def __init__(self, env: Clock, speed: float) -> None:
        self._env = env
        self._speed = speed
        self._real_ns = env.now  # when it showed _local_ns
        self._local_ns = env.now
        self._alarm = Alarm(env, self._ring)
        self._eid = count()
        self.agenda = self
        self.heap: list[tuple[int, int, int, Alarm | Event]] = []
        self.ringing = False

    @property
    def now(self) -> int:
        """What it shows."""
        return self._local_ns + int((self._env.now - self._real_ns) * self._speed)

    _now = now

    def go_at(self, speed: float) -> None:
        """Change its speed, from now on."""
        if speed == self._speed:
            return
        self._local_ns, self._real_ns = self.now, self._env.now
        self._speed = speed
        self.arm()

    # ---- what devices use ----------------------------------------------------------------------

    def schedule(self, event: Event, priority: Any = NORMAL, delay: int = 0) -> None:
        """Let an event happen when the clock has gone on for `delay`."""
        if delay <= 0:
            self._env.schedule(event, priority, 0)
            return
        heappush(self.heap, (self.now + delay, priority, next(self._eid), event))
        if not self.ringing:
            self.arm()

    def timeout(self, delay: int) -> Event:
        """An event that happens when the clock has gone on for `delay`."""
        return Timeout(cast(Any, self), delay)

    def event(self) -> Event:
        """An event that somebody lets happen."""
        return Event(cast(Any, self))

    def process(self, generator: Any) -> Any:
        """Run a process."""
        return self._env.process(generator)

    # ---- inside --------------------------------------------------------------------------------

    def arm(self) -> None:
        """See that the simulation comes back for the first of the heap."""
        if not self.heap:
            self._alarm.off()
            return
        left_ns = self.heap[0][0] - self._local_ns
        due_ns = self._real_ns + math.ceil(left_ns / self._speed)
        self._alarm.at(max(due_ns, self._env.now))

    def _ring(self) -> None:
        heap = self.heap
        self.ringing = True
        try:
            # Rounded down, the clock may show a nanosecond too little.
            while heap and heap[0][0] <= self.now + 1:
                entry = heappop(heap)
                self._local_ns, self._real_ns = max(entry[0], self._local_ns), self._env.now
                self._happens(entry)
        finally:
            self.ringing = False
        self.arm()

    def _happens(self, entry: Any) -> None:
        time_ns, _, _, what = entry
        if isinstance(what, Event):
            callbacks: Any = what.callbacks
            what.callbacks = cast(Any, None)  # as SimPy marks what has happened
            for callback in callbacks:
                callback(what)
        elif what.entry is entry:
            what.entry = None
            if what.wanted_ns > time_ns:
                what.at(what.wanted_ns)
            elif what.wanted_ns >= 0:
                what.ring()


class SharingTrainer(Trainer):
    """A `Trainer` on a machine that it shares.

    Args:
        env: the simulation.
        host: see `Trainer`.
        costs: see `Trainer`.
        layout: see `Trainer`.
        save_s: see `Trainer`.
        recompute_proximal: see `Trainer`.
        shared: the machine.
        cores: processors that the trainer takes of it while it works.
    """

    def __init__(
        self,
        env: Clock,
        host: Host,
        costs: CostProvider,
        layout: Callable[[Sequence[int]], PackedStep],
        save_s: Callable[[int, int], float],
        *,
        recompute_proximal: bool,
        shared: SharedHost,
        cores: float,
    ) -> None:
        self._shared = shared
        self._cores = cores
        super().__init__(
            shared.trainer_clock,
            _Translated(host, RealTime(env, host.measure)),
            costs,
            layout,
            save_s,
            colocated=False,
            recompute_proximal=recompute_proximal,
        )

    def _be(self, activity: TrainerActivity, waiting_ns: int = 0, micro_batches: int = 0) -> None:
        super()._be(activity, waiting_ns, micro_batches)
        self._shared.trains(0.0 if activity in ("idle", "down") else self._cores)


class _Translated:
    """The trainer's host, its spans translated."""

    def __init__(self, host: Host, real_time: RealTime) -> None:
        self.emit = host.emit
        self.end_instant = host.end_instant
        self.lend_servers = host.lend_servers
        self.give_back_servers = host.give_back_servers
        self.measure: Callable[[TrainerSpan], None] = real_time.measure


class RealTime:
    """Translates what a device with a clock of its own reports of its time.

    Args:
        env: the simulation.
        measure: takes translated spans.
    """

    def __init__(self, env: Clock, measure: Callable[[Any], None]) -> None:
        self._env = env
        self._measure = measure
        self._since_ns = env.now

    def measure(self, span: ServerSpan | TrainerSpan) -> None:
        """Take a span that has just ended; spans tile the device's time."""
        start_ns, end_ns = self._since_ns, self._env.now
        self._since_ns = end_ns
        if end_ns <= start_ns:
            return
        length_ns = end_ns - start_ns
        ratio = length_ns / max(span.end_ns - span.start_ns, 1)
        parts: dict[str, Any] = {"start_ns": start_ns, "end_ns": end_ns}
        if isinstance(span, TrainerSpan):
            parts["waiting_ns"] = min(round(span.waiting_ns * ratio), length_ns)
        else:
            prefill_ns = min(round(span.prefill_ns * ratio), length_ns)
            parts["prefill_ns"] = prefill_ns
            parts["recompute_ns"] = min(round(span.recompute_ns * ratio), length_ns - prefill_ns)
        self._measure(dataclasses.replace(span, **parts))
