"""A simulated server behind a client, as real ones are: requests and answers take time.

The program that drives real servers sends at most as many requests as a server runs at once and
holds the others back (`areal_real.serving.flow`); a place is free when the answer has come in, not
when the engine was done. While an update is in progress nothing is sent. Of all this a `Server` by
itself knows nothing: there what the scheduler starts is with the engine at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from areal_sched.commands import UpdateMode
from areal_sched.events import Event, RolloutsInterrupted
from areal_sched.ids import RolloutId, ServerId, WeightVersion
from areal_sched.measurements import ServerActivity, ServerSpan
from areal_sim.clock import Clock
from areal_sim.costs.protocol import FS_PER_NS, ClientCost
from areal_sim.engine import Engine, Request
from areal_sim.host import RealTime, SharedHost
from areal_sim.loading import SharedLoads
from areal_sim.server import Host, Server

NS_PER_S = 1_000_000_000


class Pipe:
    """Messages one after the other: each takes its time, and all of them a while on the way.

    Args:
        env: the clock.
        latency_s: on the way.
        each_s: between two of them at least.
    """

    def __init__(self, env: Clock, latency_s: float, each_s: float) -> None:
        self._env = env
        self._latency_ns = round(latency_s * NS_PER_S)
        self._each_ns = round(each_s * NS_PER_S)
        self._free_ns = 0

    def then(self, act: Callable[[], None]) -> None:
        """Send one more message; act when it arrives."""
        now_ns = self._env.now
        self._free_ns = max(now_ns, self._free_ns) + self._each_ns
        arrives = self._env.timeout(self._free_ns + self._latency_ns - now_ns)
        arrives.callbacks.append(lambda _: act())


class _Answers:
    """The server's host: what it reports passes through a pipe on its way to the executor."""

    def __init__(self, host: Host, measure: Callable[[ServerSpan], None]) -> None:
        self._host = host
        self.emit: Callable[[Event], None] = host.emit
        self.touched = host.touched
        self.end_instant = host.end_instant
        self.measure = measure

    def finished(self, request: Request, server: Server) -> None:
        """Take what the engine has finished."""
        assert isinstance(server, RemoteServer)
        server.answered(request)


class RemoteServer(Server):
    """A `Server` behind a client; see the module.

    Args:
        env: the simulation.
        server_id: see `Server`.
        host: see `Server`.
        new_engine: see `Server`.
        load_ns: see `Server`.
        weight_version: see `Server`.
        loads: see `Server`.
        client: what the way costs.
        shared: the machine that servers and trainer share, if they do.
        cores: processors that the server takes of it while it works.
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
        *,
        client: ClientCost,
        shared: SharedHost | None = None,
        cores: float = 0.0,
    ) -> None:
        clock = env if shared is None else shared.new_clock()
        measure: Callable[[ServerSpan], None] = host.measure
        if shared is not None:
            measure = RealTime(env, host.measure).measure
        self._shared = shared
        self._cores = cores
        answers = _Answers(host, measure)
        super().__init__(clock, server_id, answers, new_engine, load_ns, weight_version, loads)
        self._executor = host
        self._stop_ns = round(client.stop_s * NS_PER_S)
        self._requests = Pipe(clock, client.dispatch_s, client.dispatch_per_rollout_s)
        self._answers = Pipe(clock, client.report_s, client.report_per_rollout_s)
        self._held: deque[Request] = deque()  # by the client
        self._sent: dict[int, Request] = {}  # on their way to the engine
        self._out = 0  # places taken: sent, with the engine, or answered on the way back
        self._coming = 0  # answers on the way back
        self._updating = False
        self._cut: list[Request] = []  # held back or on their way when an interruption came
        self._then: Callable[[], None] | None = None  # a drain that waits for what is on its way

    # ---- commands ------------------------------------------------------------------------------

    def submit_all(self, requests: Iterable[Request]) -> None:
        """Take rollouts; each is sent when there is a place."""
        self._waits_for_resume = False
        self._held += requests
        self._send()

    def load(self, version: WeightVersion, mode: UpdateMode) -> None:
        """Load published weights; nothing is sent until that is done."""
        self._updating = True
        if mode == "drain" and self._sent:
            # What is on its way is part of what is drained.
            self._then = partial(Server.load, self, version, mode)
            return
        if mode == "interrupt":
            self._cut = [*self._sent.values(), *self._held]
            self._out -= len(self._sent)
            self._sent.clear()
            self._held.clear()
        life = self._life

        def begin() -> None:
            if life == self._life:
                Server.load(self, version, mode)
                self._host.end_instant()

        if mode == "interrupt" and self._stop_ns:
            self._env.timeout(self._stop_ns).callbacks.append(lambda _: begin())
        else:
            Server.load(self, version, mode)

    def remove(self, rollout_ids: set[int], reason: str | None) -> None:
        """Stop rollouts, wherever they are."""
        mine = [r for r in (*self._sent.values(), *self._held) if r.rollout_id in rollout_ids]
        if mine:
            self._out -= sum(r.rollout_id in self._sent for r in mine)
            for request in mine:
                self._sent.pop(request.rollout_id, None)
            self._held = deque(r for r in self._held if r.rollout_id not in rollout_ids)
            super()._report(mine, reason)
        super().remove(rollout_ids, reason)
        self._drain_if_all_arrived()
        self._send()

    def lose(self) -> list[Request]:
        """The server dies."""
        lost = [*super().lose(), *self._sent.values(), *self._held, *self._cut]
        self._sent.clear()
        self._held.clear()
        self._cut = []
        self._then = None
        self._out = self._coming = 0
        self._updating = False
        return lost

    # ---- on the way ----------------------------------------------------------------------------

    def _send(self) -> None:
        most = self.engine.max_running_rollouts
        while self._held and self._out < most and not self._updating and self.alive:
            request = self._held.popleft()
            self._out += 1
            self._sent[request.rollout_id] = request
            self._requests.then(partial(self._arrive, request, self._life))
        self._touch()

    def _arrive(self, request: Request, life: int) -> None:
        if life == self._life and self._sent.get(request.rollout_id) is request:
            del self._sent[request.rollout_id]
            super().submit_all((request,))
            self._drain_if_all_arrived()
            self._host.end_instant()

    def _drain_if_all_arrived(self) -> None:
        if not self._sent and self._then is not None:
            then, self._then = self._then, None
            then()

    def answered(self, request: Request) -> None:
        """The engine has finished a rollout: the executor hears of it a little later."""
        life = self._life
        self._coming += 1

        def comes_in() -> None:
            if life == self._life:
                self._out -= 1
                self._coming -= 1
                self._executor.finished(request, self)
                self._send()
                self._host.end_instant()

        self._answers.then(comes_in)

    def _report(self, taken: list[Request], reason: str | None) -> None:
        """Of what the engine had: its places are free."""
        self._out -= len(taken)
        super()._report(taken, reason)
        self._send()

    def _interrupt(self) -> None:
        now_fs = self._env.now * FS_PER_NS
        taken = self.engine.take(now_fs)
        self.engine.hold(now_fs)
        self._stopped = True
        self._out -= len(taken)
        stopped = [*taken, *self._cut]
        self._cut = []
        life = self._life

        def comes_in() -> None:
            if life != self._life:
                return
            if stopped:
                self._host.emit(
                    RolloutsInterrupted(
                        server_id=self.server_id,
                        weight_version=self.weight_version,
                        progress=tuple(
                            (RolloutId(r.rollout_id), r.generated_tokens) for r in stopped
                        ),
                    )
                )
                self._waits_for_resume = True
            self._begin_load()
            self._host.end_instant()

        for _ in taken[1:]:
            self._answers.then(lambda: None)
        self._answers.then(comes_in)

    def _begin_load(self) -> None:
        """A drained server waits for its last answers to come in."""
        if self._loading is not None and self._loading[1] == "drain" and self._coming:
            return  # the next answer comes by here again
        super()._begin_load()

    def _end_load(self, life: int) -> None:
        if life == self._life and self._loading is not None:
            self._updating = False
        super()._end_load(life)
        if life == self._life:
            self._send()
            self._host.end_instant()

    def settle(self) -> None:
        """The end of an instant; what is on its way counts as generation, as the client sees it."""
        super().settle()
        if self.alive and self._out and not self._stopped and not self.engine.busy:
            self._be("generate")

    def _be(self, activity: ServerActivity, *, closing: bool = False) -> None:
        super()._be(activity, closing=closing)
        if self._shared is not None:
            works = activity in ("generate", "load") and not closing
            self._shared.serves(self, self._cores if works else 0.0)
