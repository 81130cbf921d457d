"""A made-up cluster: real schedulers, real journal, invented costs.

An executor of a page or two, so that the tests of analysis need no simulator: every rollout
decodes at one speed whatever runs beside it, every training step costs so much a token. What it
reports is consistent: its events obey the state's laws, its spans tile, its counts add up.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

import numpy as np

from analysis.facts import RunFacts
from analysis.recorder import RunRecorder
from areal_sched import (
    AbortRollouts,
    Command,
    Controller,
    InterruptRollouts,
    JournalWriter,
    Limits,
    LoadWeights,
    PromptArrived,
    ResumeRollouts,
    RewardComputed,
    RolloutFailed,
    RolloutFinished,
    RolloutsInterrupted,
    ServerJoined,
    ServerSpan,
    StartRollouts,
    StartTrainStep,
    TrainerReady,
    TrainerSpan,
    TrainStepFinished,
    WeightsLoaded,
    load,
)
from tests.analysis.made_up_parts import (
    LOAD_NS,
    PHASES,
    PREFILL_NS,
    REWARD_NS,
    TOKEN_NS,
    Going,
    Kept,
    S,
    Server,
    StepDone,
    header_of,
)


class MadeUpRun:
    """One run, from its first event to the end of its last training step.

    Attributes:
        recorder: what the run's live recorder collected.
        sha256: the journal's hash.
        journal: the journal's bytes.
    """

    def __init__(
        self,
        scheduler: str = "areal",
        *,
        steps: int = 6,
        servers: int = 4,
        gpus_per_server: int = 1,
        training_gpus: int = 2,
        colocated: bool = False,
        batch: int = 64,
        group_size: int = 4,
        eta: int | None = 2,
        max_lag: int | None = None,
        in_flight: int = 64,
        median_tokens: int = 3000,
        spread: float = 0.8,
        most_tokens: int = 27_000,
        train_ns_per_token: int = 200_000,
        fail_share: float = 0.0,
        seed: int = 1,
        options: dict[str, Any] | None = None,
    ) -> None:
        bounds = {
            "train_batch_rollouts": batch,
            "group_size": group_size,
            "eta": eta,
            "max_lag": max_lag,
            "max_rollouts_in_flight": in_flight,
        }
        limits = Limits(**bounds)
        header = header_of(
            scheduler,
            options or {},
            bounds,
            generation_gpus=servers * gpus_per_server,
            gpus_per_server=gpus_per_server,
            servers=servers,
            training_gpus=training_gpus,
            colocated=colocated,
            steps=steps,
            seed=seed,
        )
        self.facts = RunFacts.from_header(json.loads(json.dumps(header)))
        self.recorder = RunRecorder(self.facts)
        self._stream = Kept()
        self._writer = JournalWriter(self._stream, header)
        self._controller = Controller(
            load(scheduler, limits, options), limits, self._writer.record, self.recorder.settled
        )
        self._random = np.random.default_rng(seed)
        self._lengths: dict[int, int] = {}
        self._length = lambda: int(
            np.clip(median_tokens * np.exp(spread * self._random.standard_normal()), 8, most_tokens)
        )
        self._train_ns_per_token = train_ns_per_token
        self._fail_share = fail_share
        self._steps = steps
        self._group_size = group_size
        self._servers = [Server() for _ in range(servers)]
        self._groups = 0
        self._epoch = 0
        self._lent = False
        self._colocated = colocated
        self._trainer = ("idle", 0, 0)
        self._queue: list[tuple[int, int, Any]] = []
        self._pushed = 0
        self.now_ns = 0
        for i in range(servers):
            event = ServerJoined(
                server_id=i, max_running_rollouts=1000, kv_cache_tokens=10**6, weight_version=0
            )
            self._at(0, event)
        self._on_offer = in_flight // group_size
        self._offered = 0
        self._feed(self._on_offer)
        self._at(0, TrainerReady(weight_version=0))
        self._run()
        self._writer.close()
        self.sha256 = self._writer.sha256
        self.journal = self._stream.kept

    def write(self, path: Path) -> Path:
        """Write the journal to a file and return its path."""
        path.write_bytes(self.journal)
        return path

    # ---- the loop ------------------------------------------------------------------------------

    def _at(self, time_ns: int, what: Any) -> None:
        self._pushed += 1
        heappush(self._queue, (time_ns, self._pushed, what))

    def _feed(self, groups: int) -> None:
        for _ in range(groups):
            event = PromptArrived(
                prompt_id=self._groups,
                group_id=self._groups,
                group_size=self._group_size,
                prompt_tokens=200 + self._groups % 300,
            )
            self._groups += 1
            self._offered += 1
            self._at(self.now_ns, event)

    def _run(self) -> None:
        state = self._controller.state
        while self._queue and state.weight_version < self._steps:
            self.now_ns, _, what = heappop(self._queue)
            event = what() if callable(what) else what
            if event is None:
                self._settle_activities()
                continue
            if type(event) is StepDone:
                self._lent = event.lent
                event = event.event
            if type(event) is PromptArrived:
                self._offered -= 1
            commands = self._controller.handle(event, now_ns=self.now_ns)
            for command in commands:
                self._execute(command)
            self.recorder.handled(self.now_ns, event, commands)
            # As a data loader does: so many prompts are on offer at any time.
            self._feed(self._on_offer - len(state.pending) - self._offered)
            self._settle_activities()
        for i, server in enumerate(self._servers):
            self._measure(server.close(i, self.now_ns))
        self._train_until(self.now_ns)
        self.recorder.ended(self.now_ns, state.rollouts.values())

    def _execute(self, command: Command) -> None:
        if isinstance(command, (StartRollouts, ResumeRollouts)):
            for rollout_id in command.rollout_ids:
                self._begin(rollout_id, command.server_id)
        elif isinstance(command, LoadWeights):
            self._load(command)
        elif isinstance(command, StartTrainStep):
            self._train(command)
        elif isinstance(command, AbortRollouts):
            for rollout_id in command.rollout_ids:
                self._at(self.now_ns, lambda r=rollout_id: self._fail(r, "aborted"))
        elif isinstance(command, InterruptRollouts):
            server_id, ids = command.server_id, set(command.rollout_ids)
            self._at(self.now_ns, lambda: self._interrupt(server_id, ids))

    # ---- servers -------------------------------------------------------------------------------

    def _begin(self, rollout_id: int, server_id: int) -> None:
        server = self._servers[server_id]
        rollout = self._controller.state.rollouts[rollout_id]
        length = self._lengths.setdefault(rollout_id, self._length())
        done = rollout.generated_tokens
        context = rollout.group.prompt_tokens + done
        prefill_ns = context * PREFILL_NS
        again = rollout_id in server.held or done > 0
        server.held.discard(rollout_id)
        begin = max(self.now_ns, server.load_until_ns if server.loading else 0)
        self._note(server_id, begin, prefill_ns, context if again else 0)
        self._epoch += 1
        begin += prefill_ns
        server.going[rollout_id] = Going(done, begin, length, done, self._epoch)
        epoch = self._epoch
        if self._random.random() < self._fail_share:
            stop = begin + (length - done) * TOKEN_NS // 2
            self._at(stop, lambda: self._fail(rollout_id, "server error", epoch))
        else:
            stop = begin + (length - done) * TOKEN_NS
            self._at(stop, lambda: self._finish(rollout_id, server_id, epoch))

    def _note(self, server_id: int, begin_ns: int, prefill_ns: int, recomputed: int) -> None:
        """Credit prefill to the span that it falls into, which may not have begun yet."""

        def credit() -> None:
            server = self._servers[server_id]
            self._settle_activities()
            if recomputed:
                server.recompute_ns += prefill_ns
                server.recomputed += recomputed
            else:
                server.prefill_ns += prefill_ns

        self._at(begin_ns, credit)

    def _finish(self, rollout_id: int, server_id: int, epoch: int) -> Any:
        server = self._servers[server_id]
        going = server.going.get(rollout_id)
        if going is None or going.epoch != epoch:
            return None
        tokens = server.progress(server.going.pop(rollout_id), self.now_ns)
        self._at(self.now_ns + REWARD_NS, RewardComputed(rollout_id=rollout_id, reward=tokens % 2))
        self._drained(server_id)
        return RolloutFinished(
            rollout_id=rollout_id,
            weight_version=server.version,
            generated_tokens=tokens,
            finish_reason="stop",
        )

    def _fail(self, rollout_id: int, reason: str, epoch: int | None = None) -> Any:
        for i, server in enumerate(self._servers):
            going = server.going.get(rollout_id)
            if going is not None and epoch in (None, going.epoch):
                server.progress(server.going.pop(rollout_id), self.now_ns)
                self._drained(i)
                return RolloutFailed(rollout_id=rollout_id, reason=reason)
        return None

    def _interrupt(self, server_id: int, ids: set[int]) -> Any:
        server = self._servers[server_id]
        progress = []
        for rollout_id in [x for x in server.going if x in ids]:
            tokens = server.progress(server.going.pop(rollout_id), self.now_ns)
            progress.append((rollout_id, tokens))
            server.held.add(rollout_id)
        if not progress:
            return None
        return RolloutsInterrupted(
            server_id=server_id, weight_version=server.version, progress=tuple(progress)
        )

    def _load(self, command: LoadWeights) -> None:
        server = self._servers[command.server_id]
        if command.mode == "interrupt" and server.going:
            ids = set(server.going)
            self._at(self.now_ns, lambda: self._interrupt(command.server_id, ids))
        if command.mode == "drain":
            server.draining = command.weight_version
            self._drained(command.server_id)
        else:
            self._load_now(command.server_id, command.weight_version)

    def _drained(self, server_id: int) -> None:
        server = self._servers[server_id]
        if server.draining is not None and not server.going:
            version, server.draining = server.draining, None
            self._load_now(server_id, version)

    def _load_now(self, server_id: int, version: int) -> None:
        server = self._servers[server_id]
        server.loading = True
        server.load_until_ns = self.now_ns + LOAD_NS + server_id * S // 10

        def loaded() -> Any:
            server.loading = False
            server.version = version
            return WeightsLoaded(server_id=server_id, weight_version=version)

        self._at(server.load_until_ns, loaded)

    # ---- the trainer ---------------------------------------------------------------------------

    def _train(self, command: StartTrainStep) -> None:
        state = self._controller.state
        tokens = sum(x.generated_tokens + x.group.prompt_tokens for x in state.training)
        total = tokens * self._train_ns_per_token
        phases: list[tuple[str, int]] = [(name, int(share * total)) for name, share in PHASES]
        phases[1:2] = [("minibatch", phases[1][1] // 4)] * 4
        if self._colocated:
            self._lent = True
            phases = [("switch", 12 * S), *phases, ("publish", 6 * S), ("save", 4 * S)]
            phases += [("switch", 12 * S)]
        else:
            phases += [("publish", 6 * S)]
        version = command.weight_version
        now = self.now_ns
        for name, length in phases:
            self._at(now, self._phase(name, version))
            now += length
        done = TrainStepFinished(weight_version=version)
        ready = TrainerReady(weight_version=version)
        if not self._colocated:
            self._at(now, self._phase("save", version))
            self._at(now, StepDone(done, False))
            now += 4 * S
            self._at(now, self._phase("idle", version))
        else:
            self._at(now, self._phase("idle", version))
            self._at(now, StepDone(done, False))
        self._at(now, ready)

    def _phase(self, activity: str, version: int) -> Callable[[], None]:
        def begin() -> None:
            self._train_until(self.now_ns)
            self._trainer = (activity, self.now_ns, version)

        return begin

    def _train_until(self, end_ns: int) -> None:
        activity, start_ns, version = self._trainer
        length = end_ns - start_ns
        if length:
            self._measure(
                TrainerSpan(
                    activity=activity,
                    weight_version=version,
                    start_ns=start_ns,
                    end_ns=end_ns,
                    waiting_ns=length // 5 if activity in ("minibatch", "proximal") else 0,
                    micro_batches=8 if activity == "minibatch" else 0,
                )
            )

    # ---- spans ---------------------------------------------------------------------------------

    def _settle_activities(self) -> None:
        interrupted = self._controller.state.interrupted
        for i, server in enumerate(self._servers):
            if self._lent:
                activity = "lent"
            elif server.loading:
                activity = "load"
            elif server.going:
                activity = "generate"
            elif any(x in interrupted for x in server.held):
                activity = "paused"
            else:
                activity = "idle"
            if activity != server.activity:
                self._measure(server.close(i, self.now_ns))
                server.activity = activity

    def _measure(self, span: ServerSpan | TrainerSpan | None) -> None:
        if span is None:
            return
        self.recorder.measured(span)
        self._writer.measure(self.now_ns, span)
