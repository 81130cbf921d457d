"""The part of a run in which events flow, between its parts' start and their end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from areal_real.checkpoints import Checkpoint, Checkpoints
from areal_real.clock import RunClock
from areal_real.config import RealConfig
from areal_real.errors import BackendError
from areal_real.executor import RealExecutor
from areal_real.feed import ProblemFeed
from areal_real.folder import RunFolder
from areal_real.learner import SpanTiler, StepDone, TrainerDriver, World
from areal_real.metrics import MetricsLog, StepMetrics
from areal_real.parts import Scorer
from areal_real.resume import Past, replay_first
from areal_real.roles import Backend, RunningServer, Watcher
from areal_real.store import TrajectoryStore
from areal_real.tasks.problem import Task
from areal_sched.controller import Controller
from areal_sched.events import ServerLost, TrainerReady
from areal_sched.ids import ServerId
from areal_sched.journal import JournalWriter
from areal_sched.measurements import Measurement
from areal_sched.records import Rollout

GROW_S = 1.0
"""How often it is looked whether a server is wanted."""

LAST_LOADS_S = 60.0
"""At its end a run waits so long for weights that are still being sent to a server."""

MOST_SERVER_RESTARTS = 5
"""Servers that are lost so often without a training step in between are not started again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a run is made of and where it lies.

    Attributes:
        config: what to run.
        header: the journal's.
        folder: the run directory.
        backend: makes the parts.
        task: problems.
        watcher: who looks on.
        checkpoints: the run's.
    """

    config: RealConfig
    header: dict[str, Any]
    folder: RunFolder
    backend: Backend
    task: Task
    watcher: Watcher
    checkpoints: Checkpoints


class Live:
    """The part of a run in which events flow."""

    def __init__(
        self,
        setting: Setting,
        checkpoint: Checkpoint | None,
        store: TrajectoryStore,
        scorer: Scorer,
        world: World,
        servers: Sequence[RunningServer],
        stack: contextlib.ExitStack,
    ) -> None:
        self._config = config = setting.config
        self._folder = folder = setting.folder
        self._backend = setting.backend
        self._watcher = setting.watcher
        self._checkpoints = setting.checkpoints
        self._store = store
        self._servers = list(servers)
        self._server_restarts = 0
        self._restarting: list[int] = []  # versions that servers start with just now
        self._retired: set[int] = set()  # that may join again
        self._settled: list[tuple[int, int]] = []
        self._feed = ProblemFeed(
            setting.task,
            group_size=config.workload.group_size,
            max_prompt_tokens=config.workload.max_prompt_tokens,
        )
        part = folder.journal.with_name(folder.journal.name + ".part")
        self._journal_file = part.open("wb")
        self._journal = JournalWriter(self._journal_file, setting.header, durable=True)
        stack.callback(self._journal.close)
        self.controller = Controller(
            config.new_scheduler(), config.limits(), self._journal.record, self._on_settled
        )
        past = self._replay(checkpoint)
        self._settle()
        folder.set_journal_aside()
        part.replace(folder.journal)
        origin_ns = time.monotonic_ns() - past.now_ns
        self._clock_ns = RunClock(origin_ns)
        self._metrics = StepMetrics(since_ns=past.now_ns)
        self._log = MetricsLog(folder.path, upto_step=int(self.controller.state.weight_version))
        stack.callback(self._log.close)
        self._feed.offered = past.prompts
        self._executor = RealExecutor(
            self.controller,
            self._feed,
            store,
            scorer,
            setting.task.tokenizer,
            self._measure,
            max_response_tokens=config.workload.max_response_tokens,
            end_ids={setting.task.tokenizer.eos_id, *folder.end_ids()},
            clock_ns=self._clock_ns,
        )
        self._tiler = SpanTiler(
            self._executor.measure, origin_ns=origin_ns, since_ns=past.trainer_spans_ns
        )
        setting.backend.connect(self._executor, self._tiler)
        self._learner = TrainerDriver(
            self._executor,
            world,
            self._another_world,
            setting.checkpoints,
            self._settle,
            batches=folder.batches,
            weights=folder.weights,
            tiler=self._tiler,
            checkpoint_every_steps=config.real.checkpoint_every_steps,
            steps=config.workload.steps,
            on_step=self._on_step,
            warn=self._watcher.note,
        )
        self._executor.learner = self._learner
        self._executor.on_server_lost = self._on_server_lost
        setting.backend.on_crowded(self._make_room)
        self._learner.on_idle = self._look_for_end
        self._past = past
        self._origin_ns = origin_ns
        self._done = asyncio.Event()

    # ---- beginning and end ---------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Let events flow until the last step or a stop."""
        state = self.controller.state
        executor = self._executor
        for number, server in enumerate(self._servers):
            executor.servers[ServerId(number)] = server
        # Servers that had joined before a resumption may join again. Until then there is somebody
        # who takes no notice of commands.
        for number in range(len(self._servers), max(state.servers, default=-1) + 1):
            self._add(number, self._backend.new_server(number))
            self._retired.add(number)
        executor.rescore()  # first: what is emitted below may finish further rollouts
        # Those of a resumed journal are gone. A scheduler may answer the first of these losses
        # with commands for a server whose loss it has not heard of: they fall on deaf ears.
        for server_id in list(state.servers):
            executor.emit(ServerLost(server_id=server_id))
        for number, server in enumerate(self._servers[: self._config.real.server.count]):
            since_ns = self._past.server_spans_ns.get(number, 0)
            server.begin(executor, self._origin_ns, since_ns, int(state.weight_version))
        for number, server in enumerate(self._servers[: self._config.real.server.count]):
            self._joined(number, server)
        for timer_id, fire_at_ns in self._past.timers.items():
            executor.rearm(timer_id, fire_at_ns)
        executor.go(self._grow())
        if not state.trainer_ready and not state.in_step:
            executor.emit(TrainerReady(weight_version=state.weight_version))
        executor.begin()
        self._look_for_end()
        ends = [asyncio.create_task(self._done.wait()), asyncio.create_task(stop.wait())]
        waits: set[asyncio.Future[Any]] = {*ends, executor.failed}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if executor.failed.done():
                executor.failed.result()
            if stop.is_set():
                await self._stop_early()
        finally:
            for wait in ends:
                wait.cancel()
            executor.close()
            end_ns = self._clock_ns.stop(state.now_ns)
            for server in self._servers:
                server.end(end_ns)
            self._tiler.close(end_ns)
            try:
                if self._done.is_set():
                    await self._last_loads()
            finally:
                self._backend.on_crowded(lambda: None)
                await self._learner.world.stop()
                real = self._config.real.server
                for server in self._servers[real.count :]:
                    await server.stop()
                # A run that goes back to a checkpoint begins with those it began with.
                for number in range(real.count, real.most):
                    self._backend.give_up(number)

    async def _last_loads(self) -> None:
        """A server that is being sent the last weights would be lost with their sender."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_LOADS_S):
                await asyncio.gather(*(server.loads_done() for server in self._servers))

    async def _stop_early(self) -> None:
        """End between two steps, with a checkpoint."""
        self._learner.stop()
        state = self.controller.state
        if not self._learner.idle.is_set():
            self._watcher.note("stopping when this training step is done; Ctrl-C again: at once")
            idle = asyncio.create_task(self._learner.idle.wait())
            waits: set[asyncio.Future[Any]] = {idle, self._executor.failed}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if self._executor.failed.done():
                self._executor.failed.result()
        elif not state.in_step:
            await self._learner.save(int(state.weight_version))

    def _replay(self, checkpoint: Checkpoint | None) -> Past:
        if checkpoint is None:
            self._store.cut({}, started=0)
            return Past()
        past = replay_first(
            self._folder.journal, checkpoint.entries, self.controller, self._journal.measure
        )
        state = self.controller.state
        live = {int(x): r.generated_tokens for x, r in state.rollouts.items()}
        tokens = self._store.cut(live, started=int(state.next_rollout_id))
        self._folder.forget_after(checkpoint.version)
        self._watcher.note(
            f"going on from step {checkpoint.version}: {past.discarded_steps} later steps,"
            f" {past.discarded_entries} journal entries and {tokens} tokens are taken back"
            " (the journal as it was is kept beside it)"
        )
        return past

    async def _another_world(self, checkpoint: Path) -> World:
        return await self._backend.start_world(checkpoint)

    # ---- what happens meanwhile ----------------------------------------------------------------

    def _measure(self, now_ns: int, measurement: Measurement) -> None:
        self._journal.measure(now_ns, measurement)
        self._metrics.meter.take(measurement)

    def _settle(self) -> int:
        """Make journal and store outlive a loss of power; returns the journal's entries."""
        self._journal.flush(sync=True)
        os.fsync(self._journal_file.fileno())
        self._store.settle()
        return self._journal.entries

    def _look_for_end(self) -> None:
        state = self.controller.state
        if state.weight_version >= self._config.workload.steps and self._learner.idle.is_set():
            self._done.set()

    def _on_step(self, done: StepDone) -> None:
        row = self._metrics.row(
            done, now_ns=self._clock_ns(), in_flight=self.controller.state.in_flight
        )
        self._log.write(row)
        self._watcher.step(row, self._config.workload.steps)
        self._server_restarts = 0
        self._tidy()

    def _tidy(self) -> None:
        """Delete what no checkpoint, server or evaluation can ask for any more."""
        kept = self._checkpoints.all()
        oldest = kept[0].version if kept else 0
        gone = [rollout_id for rollout_id, version in self._settled if version < oldest]
        self._settled = [x for x in self._settled if x[1] >= oldest]
        self._store.forget(gone)
        every = self._config.real.evaluation.every_steps
        state = self.controller.state
        wanted = {server.loading for server in state.servers.values()} | {*self._restarting}
        for version in self._folder.versions():
            evaluated = version == 0 or (every is not None and version % every == 0)
            if version < min(oldest, state.weight_version) and not (evaluated or version in wanted):
                shutil.rmtree(self._folder.weights(version), ignore_errors=True)

    def _on_settled(self, rollouts: Sequence[Rollout]) -> None:
        state = self.controller.state
        for rollout in rollouts:
            self._settled.append((int(rollout.rollout_id), int(state.weight_version)))
            group_id = rollout.group.group_id
            if group_id not in state.groups:
                self._feed.forget(group_id)

    def _joined(self, number: int, server: RunningServer) -> None:
        self._executor.joined(
            number,
            server.max_running_rollouts,
            server.kv_cache_tokens,
            int(self.controller.state.weight_version),
        )

    def _on_server_lost(self, server_id: ServerId, reason: str) -> None:
        if server_id in self._retired:
            return
        self._watcher.note(f"server {server_id} was lost: {reason}")
        self._server_restarts += 1
        if self._server_restarts > MOST_SERVER_RESTARTS:
            self._watcher.note(f"server {server_id} is not started again")
            self._backend.give_up(server_id)
            if not self.controller.state.servers:
                self._executor.fail(BackendError(f"no server is left; the last: {reason}"))
            return
        self._executor.go(self._restart(server_id))

    async def _grow(self) -> None:
        """Take in a server wherever there is room for one more, as when a node has joined."""
        state = self.controller.state
        while True:
            await asyncio.sleep(GROW_S)
            if not (state.trainer_ready or state.in_step):
                continue  # the trainer may need that room itself
            if self._retired:
                number = min(self._retired)
            elif len(self._servers) < self._config.real.server.most:
                number = len(self._servers)
            else:
                continue
            await self._backend.room_for(number)
            self._watcher.note(f"there is room for one more server, {number}: starting it")
            if number in self._retired:
                self._retired.remove(number)
            else:
                self._add(number, self._backend.new_server(number))
            await self._restart(ServerId(number), "has joined")

    def _add(self, number: int, server: RunningServer) -> None:
        """One more server, which is down."""
        since_ns = self._past.server_spans_ns.get(number, self._clock_ns())
        version = int(self.controller.state.weight_version)
        server.begin(self._executor, self._origin_ns, since_ns, version)
        self._servers.append(server)
        self._executor.servers[ServerId(number)] = server

    def _make_room(self) -> None:
        """The trainer finds no room: a server that joined later gives it up."""
        first = self._config.real.server.count
        up = [x for x in self.controller.state.servers if x >= first]
        if up:
            number = max(up)
            self._watcher.note(f"server {number} makes room for the trainer")
            self._retired.add(int(number))
            self._servers[number].lose("it was given up")
            self._backend.give_up(number)

    async def _restart(self, server_id: ServerId, told: str = "is back") -> None:
        server = self._servers[server_id]
        # Newer weights may be published while it starts: it joins with what it has, and the
        # scheduler lets it load.
        version = int(self.controller.state.weight_version)
        self._restarting.append(version)
        try:
            await server.restart(version)
        except BackendError as exc:
            self._on_server_lost(server_id, str(exc))
            return
        finally:
            self._restarting.remove(version)
        self._executor.joined(
            server_id, server.max_running_rollouts, server.kv_cache_tokens, version
        )
        self._watcher.note(f"server {server_id} {told}")
