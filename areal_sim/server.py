"""One simulated inference server: an `Engine` on SimPy's clock, with updates, faults and spans.

Whatever stops a server (an interruption, an in-place update, lending its GPUs) takes effect at the
end of the step in progress, as in a real engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from areal_sched.commands import UpdateMode
from areal_sched.events import Event, RolloutFailed, RolloutsInterrupted, WeightsLoaded
from areal_sched.ids import RolloutId, ServerId, WeightVersion
from areal_sched.measurements import ServerActivity, ServerSpan
from areal_sim.alarm import Alarm
from areal_sim.clock import Clock
from areal_sim.costs.protocol import FS_PER_NS
from areal_sim.engine import Engine, Request
from areal_sim.loading import SharedLoads


class Host(Protocol):
    """What a server needs of its surroundings."""

    def emit(self, event: Event) -> None:
        """Report an event; it is handled once the present one is."""

    def finished(self, request: Request, server: Server) -> None:
        """A rollout has its last token."""

    def touched(self, server: Server) -> None:
        """Something happened to a server: call its `settle` at the end of this instant."""

    def measure(self, span: ServerSpan) -> None:
        """Take down what a server did."""

    def end_instant(self) -> None:
        """Handle what was emitted, then settle what was touched; ends every SimPy callback."""


class Server:
    """One inference server.

    Args:
        env: the simulation.
        server_id: its id.
        host: see `Host`.
        new_engine: makes an empty engine; called again after a loss.
        load_ns: takes nothing, gives the nanoseconds the next weight load takes.
        weight_version: weights it starts with.
        loads: those of all servers, where they slow each other down.

    Attributes:
        weight_version: weights it generates with.
        alive: False between a loss and the return.
    """

    def __init__(
        self,
        env: Clock,
        server_id: ServerId,
        host: Host,
        new_engine: Callable[[], Engine],
        load_ns: Callable[[], int],
        weight_version: WeightVersion,
        loads: SharedLoads | None = None,
    ) -> None:
        self._env = env
        self.server_id = server_id
        self._host = host
        self._new_engine = new_engine
        self._load_ns = load_ns
        self._loads = loads
        self.weight_version = weight_version
        self.engine = new_engine()
        self._cost = self.engine.cost
        self.alive = True
        self._alarm = Alarm(env, self._ring)
        self._life = 0  # counts losses: what was begun in an earlier life is void
        self._loading: tuple[WeightVersion, UpdateMode] | None = None
        self._lent = False
        self._promised = False  # a loan begins at the end of the step in progress
        self._stopped = False  # the engine is held, for an update or a loan
        self._late: list[Request] = []  # came during an update: they run on the new weights
        self._next: list[Callable[[], None]] = []  # what waits for an update or a loan to end
        self._at_boundary: list[Callable[[], None]] = []
        self._boundary_ns = -1
        self._waits_for_resume = False
        self._dirty = False
        self._activity: ServerActivity = "idle"
        self._since_ns = env.now
        self._counted = (0, 0, 0, 0)
        self._past_preemptions = 0
        self._slowness = 1.0
        self._lends = 0  # counts loans asked for and given back: what was begun for another is void

    # ---- commands ------------------------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """Take a rollout: new, or interrupted before."""
        self.submit_all((request,))

    def submit_all(self, requests: Iterable[Request]) -> None:
        """Take rollouts, in order."""
        if self._loading is not None:
            self._late += requests
            return
        self._waits_for_resume = False
        if not self._dirty:
            # Touched before in this instant, the engine is at this instant already.
            self._sync()
        now_fs = self._env._now * FS_PER_NS
        for request in requests:
            self.engine.submit(request, now_fs)

    def load(self, version: WeightVersion, mode: UpdateMode) -> None:
        """Load published weights; ends with `WeightsLoaded`."""
        self._when_free(lambda: self._start_update(version, mode))

    def remove(self, rollout_ids: set[int], reason: str | None) -> None:
        """Stop rollouts: kept and reported as interrupted, or failed for `reason`."""
        late = [r for r in self._late if r.rollout_id in rollout_ids]
        self._late = [r for r in self._late if r.rollout_id not in rollout_ids]
        if late:
            self._report(late, reason)

        def act() -> None:
            taken = self.engine.take(self._env.now * FS_PER_NS, rollout_ids)
            if taken:
                self._report(taken, reason)

        self._stop_then(act)

    def lend(self, lent: Callable[[], None]) -> None:
        """Give the GPUs to a colocated trainer; `lent` is called when it has them."""
        self._lends = asked = self._lends + 1

        def act() -> None:
            if asked != self._lends:
                return  # the trainer was lost meanwhile
            self._promised = False
            self._lent = self._stopped = True
            self.engine.hold(self._env.now * FS_PER_NS)
            self._be("lent")
            lent()

        def begin() -> None:
            if asked == self._lends:
                self._promised = True
                self._stop_then(act)

        self._when_free(begin)

    def give_back(self) -> None:
        """The trainer is done with the GPUs, or does not want them any more."""
        self._lends += 1
        if self._lent:
            self._lent = self._stopped = False
            self.engine.release(self._env.now * FS_PER_NS)
            self._freed()
        elif self._promised:
            self._promised = False
            self._freed()

    # ---- faults and the end --------------------------------------------------------------------

    def catch_up(self) -> None:
        """Report what finishes at this very instant."""
        self._sync()

    def lose(self) -> list[Request]:
        """The server dies; returns the requests that were on it, their new tokens lost."""
        lost = [*self.engine.take(self._env.now * FS_PER_NS), *self._late]
        self._late.clear()
        self._next.clear()
        self._at_boundary.clear()
        self._alarm.off()
        self._loading = None
        if self._loads is not None:
            self._loads.give_up(self.server_id)
        self._lent = self._promised = self._stopped = False
        self._waits_for_resume = False
        self.alive = False
        self._life += 1
        self._be("down")
        self._past_preemptions += self.engine.preemptions
        self.engine = self._new_engine()
        self._cost = self.engine.cost
        if self._slowness != 1.0:
            self._apply_slowness()
        self._counted = (0, 0, 0, 0)
        return lost

    def slow_down(self, factor: float) -> None:
        """Steps take so many times as long, from the end of the one in progress; 1: as ever."""
        self._slowness = factor
        self._stop_then(self._apply_slowness)

    def _apply_slowness(self) -> None:
        self.engine.change_cost(self._cost.slowed(self._slowness), self._env.now * FS_PER_NS)

    def rejoin(self, version: WeightVersion) -> None:
        """The server is back, empty, with these weights."""
        self.alive = True
        self.weight_version = version
        self._be("idle")

    def close(self) -> None:
        """The run ends: report the span in progress."""
        if self.alive:
            now_fs = self._env.now * FS_PER_NS
            self.engine.advance(now_fs)
            self.engine.settle(now_fs)
        self._be("idle", closing=True)

    @property
    def preemptions(self) -> int:
        """Rollouts whose KV cache had to make room, over all lives."""
        return self._past_preemptions + self.engine.preemptions

    # ---- updates -------------------------------------------------------------------------------

    def _start_update(self, version: WeightVersion, mode: UpdateMode) -> None:
        self._loading = (version, mode)
        if mode == "drain":
            self._sync()
            self.engine.closed = True
            self._touch()
        elif mode == "interrupt":
            self._stop_then(self._interrupt)
        else:
            self._stop_then(self._begin_load)

    def _interrupt(self) -> None:
        taken = self.engine.take(self._env.now * FS_PER_NS)
        if taken:
            self._report(taken, None)
            self._waits_for_resume = True
        self._begin_load()

    def _begin_load(self) -> None:
        self._stopped = True
        self.engine.closed = False
        self.engine.hold(self._env.now * FS_PER_NS)
        self._be("load")
        life = self._life
        if self._loads is not None:
            work_ns = self._load_ns()
            self._loads.begin(self.server_id, self._env, work_ns, lambda: self._end_load(life))
            return
        done = self._env.timeout(self._load_ns())
        done.callbacks.append(lambda _: self._end_load(life))

    def _end_load(self, life: int) -> None:
        if life != self._life or self._loading is None:
            return
        now_fs = self._env.now * FS_PER_NS
        self.weight_version, _ = self._loading
        self._loading = None
        self._stopped = False
        self.engine.release(now_fs)
        late, self._late = self._late, []
        for request in late:
            self._waits_for_resume = False
            self.engine.submit(request, now_fs)
        self._host.emit(WeightsLoaded(server_id=self.server_id, weight_version=self.weight_version))
        self._freed()
        self._host.end_instant()

    def _when_free(self, act: Callable[[], None]) -> None:
        """Act now, or after the update or loan in progress."""
        if self._loading is None and not self._lent and not self._promised:
            act()
        else:
            self._next.append(act)

    def _freed(self) -> None:
        while self._next and not (self._loading or self._lent or self._promised):
            self._next.pop(0)()
        self._touch()

    # ---- time ----------------------------------------------------------------------------------

    def settle(self) -> None:
        """Everything of this instant is in: go on, and note what the server now does."""
        self._dirty = False
        if not self.alive:
            return
        engine = self.engine
        if engine.closed and engine.empty:
            self._begin_load()
        if not self._stopped:
            engine.plan()
        visible_fs = engine.next_visible_fs()  # None: nothing is in progress
        if not self._stopped:
            doing: ServerActivity = "generate"
            if visible_fs is None:
                doing = "paused" if self._waits_for_resume else "idle"
            if doing != self._activity:
                self._be(doing)
        if visible_fs is not None:
            time_ns = visible_fs // FS_PER_NS
            if self._at_boundary and self._boundary_ns < time_ns:
                time_ns = self._boundary_ns
            self._alarm.at(time_ns)
        elif self._at_boundary:
            self._alarm.at(self._boundary_ns)
        else:
            self._alarm.off()

    def _ring(self) -> None:
        self._sync()
        if self._at_boundary and self._boundary_ns <= self._env.now:
            actions, self._at_boundary = self._at_boundary, []
            for act in actions:
                act()
        self._host.end_instant()

    def _sync(self) -> None:
        """Bring the engine up to now and report what finished."""
        for request in self.engine.advance(self._env._now * FS_PER_NS):
            self._host.finished(request, self)
        if not self._dirty:
            self._dirty = True
            self._host.touched(self)

    def _stop_then(self, act: Callable[[], None]) -> None:
        """Act at the end of the step in progress."""
        self._sync()
        now_ns = self._env.now
        boundary_ns = self.engine.boundary_fs(now_ns * FS_PER_NS) // FS_PER_NS
        if boundary_ns <= now_ns:
            act()
        else:
            self._boundary_ns = boundary_ns
            self._at_boundary.append(act)

    def _touch(self) -> None:
        if not self._dirty:
            self._dirty = True
            self._host.touched(self)

    # ---- reports -------------------------------------------------------------------------------

    def _report(self, taken: list[Request], reason: str | None) -> None:
        if reason is None:
            self._host.emit(
                RolloutsInterrupted(
                    server_id=self.server_id,
                    weight_version=self.weight_version,
                    # No RolloutId(...): a call for nothing, for every rollout in every update.
                    progress=tuple(
                        [(r.rollout_id, r.generated_tokens) for r in taken]  # type: ignore[misc]
                    ),
                )
            )
        else:
            for request in taken:
                self._host.emit(
                    RolloutFailed(rollout_id=RolloutId(request.rollout_id), reason=reason)
                )

    def _be(self, activity: ServerActivity, *, closing: bool = False) -> None:
        """End the span in progress, and begin another."""
        now_ns = self._env.now
        engine = self.engine
        counted = (
            engine.prefill_fs,
            engine.recompute_fs,
            engine.generated_tokens,
            engine.recomputed_tokens,
        )
        if now_ns > self._since_ns:
            before = self._counted
            prefill_ns = counted[0] // FS_PER_NS - before[0] // FS_PER_NS
            recompute_ns = counted[1] // FS_PER_NS - before[1] // FS_PER_NS
            # Each rounded for itself, the two may exceed a span without decode by a nanosecond.
            recompute_ns = min(recompute_ns, now_ns - self._since_ns - prefill_ns)
            self._host.measure(
                ServerSpan(
                    server_id=self.server_id,
                    activity=self._activity,
                    start_ns=self._since_ns,
                    end_ns=now_ns,
                    prefill_ns=prefill_ns,
                    recompute_ns=recompute_ns,
                    generated_tokens=counted[2] - before[2],
                    recomputed_tokens=counted[3] - before[3],
                )
            )
            self._counted = counted
            self._since_ns = now_ns
        if not closing:
            self._activity = activity
