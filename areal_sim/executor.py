"""The simulator's executor: carries out the controller's commands on simulated devices.

Nothing here decides. Events wait in an inbox until the one in hand is done; when the inbox is
empty, everything of this instant is known and the touched servers go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from areal_sched import commands as c
from areal_sched.controller import Controller
from areal_sched.events import (
    Event,
    RewardComputed,
    RolloutFailed,
    RolloutFinished,
    ServerJoined,
    ServerLost,
    TimerFired,
    TrainerReady,
)
from areal_sched.ids import RolloutId, ServerId
from areal_sched.measurements import Measurement
from areal_sched.records import Phase, Rollout
from areal_sim.clock import Clock
from areal_sim.engine import Engine, Request
from areal_sim.feed import PromptFeed
from areal_sim.hung import HungServer
from areal_sim.loading import SharedLoads
from areal_sim.rewarder import Rewarder
from areal_sim.server import Server
from areal_sim.trainer import Trainer

BACKLOG_GROUPS = 64
"""Prompts on offer beyond those started: the data loader's read-ahead. Each group that is started
brings the next one in."""


REWARD_FAILED = "reward: its worker was lost"
"""Reason of rollouts whose reward failed."""


class SimExecutor:
    """Joins a controller to simulated servers, a trainer and reward workers.

    Build it, then set ``rewarder`` and ``trainer`` (they need it as their host), add servers with
    `add_server`, and `begin`.

    Args:
        env: the simulation.
        controller: decides and records.
        feed: prompts and, for the simulator alone, response lengths.
        measure: takes (now_ns, measurement).
        length_limit_tokens: answers of this length end for reason ``length``.
    """

    def __init__(
        self,
        env: Clock,
        controller: Controller,
        feed: PromptFeed,
        measure: Callable[[int, Measurement], None],
        *,
        length_limit_tokens: int,
    ) -> None:
        self._env = env
        self._controller = controller
        self._state = controller.state
        self._handle = controller.handle
        self._feed = feed
        self._measure = measure
        self._length_limit_tokens = length_limit_tokens
        self.servers: dict[ServerId, Server] = {}
        self.new_server: Callable[..., Server] = Server
        self.rewarder: Rewarder
        self.trainer: Trainer
        self.gone: set[ServerId] = set()  # lost for good
        self.started = self.finished_rollouts = 0
        self._inbox: deque[Event] = deque()
        self._touched: list[Server] = []
        self._requests: dict[int, Request] = {}
        # Colocated: what to call when all have given, while the trainer has or wants the GPUs.
        self._loan: Callable[[], None] | None = None
        self._owing: set[ServerId] = set()
        self._execute: dict[type, Callable[[Any], None]] = {
            c.StartRollouts: self._start_rollouts,
            c.ResumeRollouts: self._resume_rollouts,
            c.InterruptRollouts: self._interrupt_rollouts,
            c.AbortRollouts: self._abort_rollouts,
            c.DropRollouts: self._drop_rollouts,
            c.LoadWeights: self._load_weights,
            c.StartTrainStep: self._start_train_step,
            c.SetTimer: self._set_timer,
        }

    # ---- set-up --------------------------------------------------------------------------------

    def add_server(
        self,
        server_id: ServerId,
        new_engine: Callable[[], Engine],
        load_ns: Callable[[], int],
        loads: SharedLoads | None = None,
    ) -> Server:
        """Add a server; it joins at `begin`."""
        version = self._state.weight_version
        server = self.new_server(self._env, server_id, self, new_engine, load_ns, version, loads)
        self.servers[server_id] = server
        return server

    def begin(self) -> None:
        """Servers join, prompts arrive, the trainer is ready."""
        for server in self.servers.values():
            self._emit_joined(server)
        self.emit(TrainerReady(weight_version=self._state.weight_version))
        for _ in range(BACKLOG_GROUPS):
            self.emit(self._feed.offer(0))
        self.end_instant()

    def close(self) -> None:
        """The run ends here: report the spans in progress."""
        for server in self.servers.values():
            server.close()
        self.trainer.close()

    # ---- Executor ------------------------------------------------------------------------------

    def execute(self, command: c.Command) -> None:
        """Begin to carry out a command; its outcome comes back as events."""
        self._execute[type(command)](command)

    def _start_rollouts(self, command: c.StartRollouts) -> None:
        group_id = command.group_id
        prompt_tokens = self._state.groups[group_id].prompt_tokens
        begun = []
        for rollout_id in command.rollout_ids:
            request = Request(rollout_id, prompt_tokens, self._feed.take(group_id))
            self._requests[rollout_id] = request
            begun.append(request)
        self.servers[command.server_id].submit_all(begun)
        self.started += len(begun)
        if self._feed.exhausted(group_id):
            self._inbox.append(self._feed.offer(self._state.weight_version))

    def _resume_rollouts(self, command: c.ResumeRollouts) -> None:
        rollouts, requests = self._state.rollouts, self._requests
        resumed = []
        for rollout_id in command.rollout_ids:
            request = requests[rollout_id]
            known = rollouts[rollout_id].generated_tokens
            if known != request.generated_tokens:
                # Its server was lost: only what had been reported is left.
                request.generated_tokens = known
                request.seen_tokens = request.prompt_tokens + known if known else 0
            resumed.append(request)
        self.servers[command.server_id].submit_all(resumed)

    def _interrupt_rollouts(self, command: c.InterruptRollouts) -> None:
        self.servers[command.server_id].remove(set(command.rollout_ids), None)

    def _abort_rollouts(self, command: c.AbortRollouts) -> None:
        by_server: dict[ServerId, set[int]] = {}
        for rollout_id in command.rollout_ids:
            server_id = self._state.rollouts[rollout_id].server_id
            by_server.setdefault(server_id, set()).add(rollout_id)
        for server_id, rollout_ids in by_server.items():
            self.servers[server_id].remove(rollout_ids, "aborted")

    def _drop_rollouts(self, command: c.DropRollouts) -> None:
        for rollout_id in command.rollout_ids:
            self._requests.pop(rollout_id, None)

    def _load_weights(self, command: c.LoadWeights) -> None:
        self.servers[command.server_id].load(command.weight_version, command.mode)

    def _start_train_step(self, command: c.StartTrainStep) -> None:
        rollouts = self._state.rollouts
        sizes = []
        for rollout_id in command.rollout_ids:
            rollout = rollouts[rollout_id]
            sizes.append(rollout.group.prompt_tokens + rollout.generated_tokens)
        self.trainer.start(command, sizes)

    def _set_timer(self, command: c.SetTimer) -> None:
        timer = self._env.timeout(command.fire_at_ns - self._env.now)

        def fire(_: object) -> None:
            self.emit(TimerFired(timer_id=command.timer_id))
            self.end_instant()

        timer.callbacks.append(fire)

    # ---- host of servers, trainer and rewarder -------------------------------------------------

    def emit(self, event: Event) -> None:
        """Report an event; it is handled by `end_instant`."""
        self._inbox.append(event)

    def end_instant(self) -> None:
        """Handle all events of this instant, then let the touched servers go on."""
        inbox = self._inbox
        handle, execute = self._handle, self._execute
        now_ns = self._env._now
        touched = self._touched
        while inbox or touched:
            while inbox:
                for command in handle(inbox.popleft(), now_ns=now_ns):
                    execute[type(command)](command)
            while touched:
                touched.pop().settle()

    def settled(self, rollouts: Sequence[Rollout]) -> None:
        """Forget what failed; a replacement will answer at the same length.

        A group that is given up makes place for another on offer.
        """
        if rollouts and rollouts[0].phase is Phase.FAILED:
            feed = self._feed
            for rollout in rollouts:
                request = self._requests.pop(rollout.rollout_id, None)  # None: in reward
                tokens = request.total_tokens if request else rollout.generated_tokens
                group = rollout.group
                if feed.left(group.group_id) < group.unstarted:  # not after an abort
                    feed.put_back(group.group_id, tokens)
                elif group.abandoned and feed.give_up(group.group_id):
                    self._inbox.append(feed.offer(self._state.weight_version))

    def finished(self, request: Request, server: Server) -> None:
        """A rollout has its last token: report it and compute its reward."""
        rollout_id: RolloutId = request.rollout_id  # type: ignore[assignment]  # saves a call
        tokens = request.total_tokens
        del self._requests[rollout_id]
        self.finished_rollouts += 1
        self._inbox.append(
            RolloutFinished(
                rollout_id=rollout_id,
                weight_version=server.weight_version,
                generated_tokens=tokens,
                finish_reason="length" if tokens >= self._length_limit_tokens else "stop",
            )
        )
        self.rewarder.submit(rollout_id)

    def rewarded(self, rollout_id: int) -> None:
        """A reward is computed. Its value is not modelled: no schedule here depends on it."""
        known: RolloutId = rollout_id  # type: ignore[assignment]  # saves a call
        self._inbox.append(RewardComputed(rollout_id=known, reward=0.0))

    def reward_failed(self, rollout_id: int) -> None:
        """A reward cannot be computed."""
        failed = RolloutFailed(rollout_id=RolloutId(rollout_id), reason=REWARD_FAILED)
        self._inbox.append(failed)

    def touched(self, server: Server) -> None:
        """Settle this server at the end of the instant."""
        self._touched.append(server)

    def measure(self, span: Measurement) -> None:
        """Hand a measurement on."""
        self._measure(self._env.now, span)

    def lend_servers(self, lent: Callable[[], None]) -> None:
        """Colocated: call `lent` when every live server has given its GPUs."""
        self._loan = lent
        self._owing = {server_id for server_id, server in self.servers.items() if server.alive}
        if not self._owing:
            lent()
        for server_id in sorted(self._owing):
            self._lend(server_id)

    def _lend(self, server_id: ServerId) -> None:
        self.servers[server_id].lend(lambda: self._given(server_id))

    def _given(self, server_id: ServerId) -> None:
        """A server has given its GPUs, or is lost and does not need them."""
        if server_id in self._owing:
            self._owing.remove(server_id)
            if not self._owing and self._loan is not None:
                self._loan()

    def give_back_servers(self) -> None:
        """Colocated: the servers have their GPUs again."""
        self._loan = None
        for server in self.servers.values():
            server.give_back()

    # ---- faults --------------------------------------------------------------------------------

    def is_up(self, server_id: ServerId) -> bool:
        """Whether there is such a server, neither lost nor hung."""
        server = self.servers.get(server_id)
        return server is not None and server.alive and not isinstance(server, HungServer)

    def hangs(self, server_id: ServerId) -> bool:
        """Whether a server hangs and that was not found out yet."""
        return isinstance(self.servers.get(server_id), HungServer)

    def hang_server(self, server_id: ServerId) -> None:
        """A server does nothing any more, and nobody knows; `lose_server` finds it out."""
        self.servers[server_id] = HungServer(self._stopped(server_id))

    def lose_server(self, server_id: ServerId) -> None:
        """A server dies, or is found hung."""
        server = self.servers[server_id]
        if isinstance(server, HungServer):
            self.servers[server_id] = server.server
        else:
            self._stopped(server_id)
        self.emit(ServerLost(server_id=server_id))
        self._given(server_id)
        self.end_instant()

    def _stopped(self, server_id: ServerId) -> Server:
        """A server that has just lost all it had."""
        server = self.servers[server_id]
        # What it finishes at this very instant comes first, while the scheduler may still send it
        # something in answer.
        server.catch_up()
        self.end_instant()
        server.lose()
        return server

    def return_server(self, server_id: ServerId) -> None:
        """A lost server is back, with the newest published weights."""
        server = self.servers[server_id]
        server.rejoin(self._state.weight_version)
        if self._loan is not None:
            self._lend(server_id)
        self.join_server(server)

    def join_server(self, server: Server) -> None:
        """A server that was added or is back joins."""
        self._emit_joined(server)
        self.end_instant()

    def break_rollouts(self, server_id: ServerId, count: int, reason: str | None) -> int:
        """The oldest rollouts on a server stop: kept and reported, or failed for `reason`.

        Those that finish with the step in progress have finished. Returns how many are stopped.
        """
        running = self._state.servers[server_id].rollouts.values()
        oldest = sorted(r.rollout_id for r in running if r.phase is Phase.RUNNING)[:count]
        self.servers[server_id].remove(set(oldest), reason)
        self.end_instant()
        return len(oldest)

    # ---- shared parts --------------------------------------------------------------------------

    def _emit_joined(self, server: Server) -> None:
        engine = server.engine
        self.emit(
            ServerJoined(
                server_id=server.server_id,
                max_running_rollouts=engine.max_running_rollouts,
                kv_cache_tokens=engine.kv_cache_tokens,
                weight_version=server.weight_version,
            )
        )
