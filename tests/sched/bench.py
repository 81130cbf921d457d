"""A controller on the bench: a scheduler that says what it is told, and short words for events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from areal_sched import (
    AbortRollouts,
    ClusterState,
    ClusterView,
    Command,
    Controller,
    DropRollouts,
    Event,
    Limits,
    LoadWeights,
    PromptArrived,
    ResumeRollouts,
    RewardComputed,
    Rollout,
    RolloutFailed,
    RolloutFinished,
    RolloutsInterrupted,
    ServerJoined,
    ServerLost,
    StartRollouts,
    StartTrainStep,
    TrainerReady,
    TrainStepFailed,
    TrainStepFinished,
    UpdateMode,
    WeightsLoaded,
)
from areal_sched import load as load_scheduler
from areal_sched.ids import GroupId, PromptId, RolloutId, ServerId, WeightVersion
from benchmarks.recount import recount

LIMITS = Limits(train_batch_rollouts=4, group_size=2, eta=1, max_rollouts_in_flight=8)


class Script:
    """Answers the next event with what it was given."""

    def __init__(self) -> None:
        self.next: list[Command] = []

    def decide(self, event: Event, view: ClusterView) -> Iterator[Command]:
        commands, self.next = self.next, []
        yield from commands


class Bench:
    """Hands events in one by one and recounts the state after each.

    Attributes:
        settled: (rollout id, phase name) in the order they settled.
    """

    def __init__(self, limits: Limits = LIMITS, *, groups_whole: bool = False) -> None:
        self._script = Script()
        self._groups_whole = groups_whole
        self._prompts = 0
        self.settled: list[tuple[int, str]] = []
        self.controller = Controller(self._script, limits, None, self._note)
        self.state: ClusterState = self.controller.state

    def do(self, *commands: Command) -> Bench:
        """Give commands, in answer to a prompt of no interest."""
        self._prompts += 1
        return self(prompt(1000 + self._prompts), *commands)

    def _note(self, rollouts: object) -> None:
        self.settled += [(r.rollout_id, r.phase.name) for r in rollouts]  # type: ignore[attr-defined]

    def __call__(self, event: Event, *commands: Command) -> Bench:
        """Handle an event, answered by these commands, one nanosecond after the last."""
        self._script.next = list(commands)
        self.controller.handle(event, now_ns=self.state.now_ns + 1)
        recount(self.state, groups_whole=self._groups_whole)
        return self

    def phase(self, rollout_id: int) -> str:
        """Name of a live rollout's phase."""
        return self.rollout(rollout_id).phase.name

    def rollout(self, rollout_id: int) -> Rollout:
        """A live rollout."""
        return self.state.rollouts[RolloutId(rollout_id)]

    def cluster(self, *, servers: int = 2, groups: int = 3) -> Bench:
        """Servers 0, 1, ... and the trainer join; groups 0, 1, ... of 10 prompt tokens arrive."""
        for server_id in range(servers):
            self(joined(server_id))
        self(ready(0))
        for group_id in range(groups):
            self(prompt(group_id, self.state.limits.group_size))
        return self

    def started(self, *, servers: int = 2, groups: int = 2) -> Bench:
        """As `cluster`, with so many groups of 2 started: rollout i on server i % servers."""
        self.cluster(servers=servers, groups=groups + 1)
        for i in range(2 * groups):
            self.do(start(i // 2, i, server_id=i % servers))
        return self

    def accepted(self, *rollout_ids: int) -> Bench:
        """These running rollouts finish and get their rewards."""
        for rollout_id in rollout_ids:
            self(finished(rollout_id))(rewarded(rollout_id))
        return self


def ids(*rollout_ids: int) -> tuple[RolloutId, ...]:
    """Rollout ids."""
    return tuple(RolloutId(x) for x in rollout_ids)


def joined(server_id: int, version: int = 0) -> ServerJoined:
    return ServerJoined(
        server_id=ServerId(server_id),
        max_running_rollouts=4,
        kv_cache_tokens=1000,
        weight_version=WeightVersion(version),
    )


def lost(server_id: int) -> ServerLost:
    return ServerLost(server_id=ServerId(server_id))


def prompt(group_id: int, size: int = 2, prompt_tokens: int = 10) -> PromptArrived:
    return PromptArrived(
        prompt_id=PromptId(group_id),
        group_id=GroupId(group_id),
        group_size=size,
        prompt_tokens=prompt_tokens,
    )


def finished(rollout_id: int, version: int = 0, tokens: int = 5) -> RolloutFinished:
    return RolloutFinished(
        rollout_id=RolloutId(rollout_id),
        weight_version=WeightVersion(version),
        generated_tokens=tokens,
        finish_reason="stop",
    )


def failed(rollout_id: int) -> RolloutFailed:
    return RolloutFailed(rollout_id=RolloutId(rollout_id), reason="broke")


def rewarded(rollout_id: int, reward: float = 1.0) -> RewardComputed:
    return RewardComputed(rollout_id=RolloutId(rollout_id), reward=reward)


def interrupted(
    server_id: int, *progress: tuple[int, int], version: int = 0
) -> RolloutsInterrupted:
    return RolloutsInterrupted(
        server_id=ServerId(server_id),
        weight_version=WeightVersion(version),
        progress=tuple((RolloutId(x), tokens) for x, tokens in progress),
    )


def ready(version: int) -> TrainerReady:
    return TrainerReady(weight_version=WeightVersion(version))


def trained(version: int) -> TrainStepFinished:
    return TrainStepFinished(weight_version=WeightVersion(version))


def train_failed(version: int) -> TrainStepFailed:
    return TrainStepFailed(weight_version=WeightVersion(version), reason="broke")


def loaded(server_id: int, version: int) -> WeightsLoaded:
    return WeightsLoaded(server_id=ServerId(server_id), weight_version=WeightVersion(version))


def start(group_id: int, *rollout_ids: int, server_id: int = 0) -> StartRollouts:
    return StartRollouts(
        group_id=GroupId(group_id), rollout_ids=ids(*rollout_ids), server_id=ServerId(server_id)
    )


def load(server_id: int, version: int, mode: UpdateMode = "interrupt") -> LoadWeights:
    return LoadWeights(
        server_id=ServerId(server_id), weight_version=WeightVersion(version), mode=mode
    )


def train(version: int, *rollout_ids: int) -> StartTrainStep:
    return StartTrainStep(weight_version=WeightVersion(version), rollout_ids=ids(*rollout_ids))


def abort(*rollout_ids: int) -> AbortRollouts:
    return AbortRollouts(rollout_ids=ids(*rollout_ids))


def drop(*rollout_ids: int) -> DropRollouts:
    return DropRollouts(rollout_ids=ids(*rollout_ids))


def resume(server_id: int, *rollout_ids: int) -> ResumeRollouts:
    return ResumeRollouts(rollout_ids=ids(*rollout_ids), server_id=ServerId(server_id))


def busy() -> Bench:
    """Rollout 0 runs with 3 tokens on server 0, 1 is finished, 2 ready, 3 interrupted."""
    bench = Bench().started()
    bench(interrupted(0, (0, 3)), resume(0, 0))(finished(1))
    return bench.accepted(2)(interrupted(1, (3, 1)))


class Live:
    """A real scheduler, events handed in by hand; calling it returns the commands."""

    def __init__(self, scheduler: Any, limits: Limits) -> None:
        self._controller = Controller(scheduler, limits, None)
        self.state: ClusterState = self._controller.state

    def __call__(self, *events: Event) -> tuple[Command, ...]:
        """The commands that answer the last of the events."""
        commands: tuple[Command, ...] = ()
        for event in events:
            commands = self._controller.handle(event, now_ns=self.state.now_ns + 1)
            recount(self.state, groups_whole=False)
        return commands


def live(path: str, limits: Limits, *, servers: int = 2, groups: int = 2, **options: Any) -> Live:
    """Servers, the trainer and prompts are there, and what the scheduler started."""
    run = Live(load_scheduler(path, limits, options), limits)
    for server_id in range(servers):
        run(joined(server_id))
    run(ready(0))
    for group_id in range(groups):
        run(prompt(group_id, limits.group_size))
    return run


def limits_of(batch: int, group_size: int = 1, **more: Any) -> Limits:
    return Limits(train_batch_rollouts=batch, group_size=group_size, **{"eta": 4, **more})
