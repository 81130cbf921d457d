"""The laws of a run, counted once more from its journal's entries and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from areal_sched import (
    AbortRollouts,
    Command,
    DropRollouts,
    Entry,
    Event,
    InterruptRollouts,
    Limits,
    LoadWeights,
    PromptArrived,
    ResumeRollouts,
    RewardComputed,
    RolloutFailed,
    RolloutFinished,
    RolloutsInterrupted,
    ServerJoined,
    ServerLost,
    SetTimer,
    StartRollouts,
    StartTrainStep,
    TimerFired,
    TrainerReady,
    TrainStepFailed,
    TrainStepFinished,
    WeightsLoaded,
)
from areal_sim.executor import BACKLOG_GROUPS

SETTLED = ("trained", "failed", "dropped")


@dataclass
class Told:
    """What the journal tells of one rollout.

    Attributes:
        place: server, held, reward, ready, training, or one of `SETTLED`.
        stint_ns, stint_tokens: when it came to its present server, and with how many tokens.
    """

    group_id: int
    sample: int
    server_id: int
    first_version: int
    stint_ns: int
    stint_tokens: int = 0
    place: str = "server"
    tokens: int = 0
    aborting: bool = False


@dataclass
class JournalAudit:
    """Folds entries and asserts, at each, what must hold.

    Args:
        limits: what must be kept.
        groups_whole: each group must be trained in one step.

    Attributes:
        rollouts: all that were ever started.
        lags: how often a trajectory of each lag was trained.
        finished: every answer that ended, in order, with what was told of it then.
        stints: (nanoseconds, tokens made in them) of every stint on a server whose end was told.
    """

    limits: Limits
    groups_whole: bool = False
    rollouts: dict[int, Told] = field(default_factory=dict)
    lags: Counter[int] = field(default_factory=Counter)
    finished: list[tuple[Told, RolloutFinished]] = field(default_factory=list)
    stints: list[tuple[int, int]] = field(default_factory=list)
    version: int = 0
    _batch: tuple[int, ...] = ()
    _now_ns: int = 0
    _servers: dict[int, list[int | None]] = field(default_factory=dict)  # version, loading
    _offered: int = 0
    _samples: Counter[int] = field(default_factory=Counter)
    _exhausted: int = 0
    _timers: set[int] = field(default_factory=set)

    def read(self, entries: Iterable[Entry]) -> JournalAudit:
        """Check all entries in order."""
        for entry in entries:
            assert entry.error is None, entry.error
            if entry.now_ns > self._now_ns:
                # An instant is over: the data loader has made up for the groups that were started.
                assert self._offered - self._exhausted >= BACKLOG_GROUPS
            assert entry.now_ns >= self._now_ns, "time runs backwards"
            self._now_ns = entry.now_ns
            self._event(entry.event)
            for command in entry.commands:
                self._command(command)
        return self

    def count(self, *places: str) -> int:
        """Rollouts now in these places."""
        return sum(told.place in places for told in self.rollouts.values())

    def live(self) -> list[int]:
        """Rollouts that are not settled."""
        return [i for i, told in self.rollouts.items() if told.place not in SETTLED]

    def _settle(self, told: Told, place: str) -> None:
        assert told.place not in SETTLED, f"{told} is settled a second time, as {place}"
        told.place = place

    # ---- events --------------------------------------------------------------------------------

    def _event(self, event: Event) -> None:
        match event:
            case ServerJoined():
                assert event.server_id not in self._servers
                assert event.weight_version <= self.version
                self._servers[event.server_id] = [event.weight_version, None]
            case ServerLost():
                del self._servers[event.server_id]
                for told in self.rollouts.values():
                    if told.place == "server" and told.server_id == event.server_id:
                        self._leave(told)
            case PromptArrived():
                assert event.group_id == self._offered, "groups are offered in order"
                assert event.group_size == self.limits.group_size
                self._offered += 1
            case RolloutsInterrupted():
                for rollout_id, tokens in event.progress:
                    told = self.rollouts[rollout_id]
                    assert (told.place, told.server_id) == ("server", event.server_id)
                    assert tokens >= told.tokens
                    assert event.weight_version == self._servers[event.server_id][0]
                    self._report(told, tokens)
                    self._leave(told)
            case RolloutFinished():
                told = self.rollouts[event.rollout_id]
                assert told.place == "server"
                assert event.weight_version == self._servers[told.server_id][0]
                self._report(told, event.generated_tokens)
                told.place, told.aborting = "reward", False
                self.finished.append((told, event))
            case RolloutFailed():
                told = self.rollouts[event.rollout_id]
                assert told.aborting, "in simulation nothing fails but what was aborted"
                self._settle(told, "failed")
            case RewardComputed():
                told = self.rollouts[event.rollout_id]
                assert told.place in ("reward", "dropped")
                if told.place == "reward":
                    told.place = "ready"
            case TrainStepFinished():
                assert event.weight_version == self.version + 1
                self.version += 1
                for rollout_id in self._batch:
                    self._settle(self.rollouts[rollout_id], "trained")
                self._batch = ()
            case WeightsLoaded():
                server = self._servers[event.server_id]
                assert server[1] == event.weight_version
                server[:] = [event.weight_version, None]
            case TrainerReady():
                assert event.weight_version == self.version
                assert not self._batch
            case TimerFired():
                self._timers.remove(event.timer_id)
            case TrainStepFailed():
                raise AssertionError("no training step fails in simulation")

    def _report(self, told: Told, tokens: int) -> None:
        """A stint ends, and how far the answer came is told."""
        self.stints.append((self._now_ns - told.stint_ns, tokens - told.stint_tokens))
        told.tokens = tokens

    def _leave(self, told: Told) -> None:
        """A rollout is on no server any more."""
        if told.aborting:
            self._settle(told, "failed")
        else:
            told.place = "held"

    # ---- commands ------------------------------------------------------------------------------

    def _command(self, command: Command) -> None:
        match command:
            case StartRollouts():
                self._start(command)
            case ResumeRollouts():
                for rollout_id in command.rollout_ids:
                    told = self.rollouts[rollout_id]
                    assert told.place == "held"
                    told.place, told.server_id = "server", command.server_id
                    told.stint_ns, told.stint_tokens = self._now_ns, told.tokens
                    if told.tokens == 0:
                        told.first_version = self._weights_of(command.server_id)
            case InterruptRollouts():
                for rollout_id in command.rollout_ids:
                    assert self.rollouts[rollout_id].place == "server"
            case AbortRollouts():
                for rollout_id in command.rollout_ids:
                    assert self.rollouts[rollout_id].place == "server"
                    self.rollouts[rollout_id].aborting = True
            case DropRollouts():
                for rollout_id in command.rollout_ids:
                    assert self.rollouts[rollout_id].place in ("held", "reward", "ready")
                    self._settle(self.rollouts[rollout_id], "dropped")
            case LoadWeights():
                server = self._servers[command.server_id]
                assert server[1] is None
                assert server[0] is not None
                assert server[0] < command.weight_version <= self.version
                server[1] = command.weight_version
            case StartTrainStep():
                self._train(command)
            case SetTimer():
                assert command.fire_at_ns >= self._now_ns
                self._timers.add(command.timer_id)

    def _weights_of(self, server_id: int) -> int:
        """Weights that make the first token of what is sent there now."""
        version, loading = self._servers[server_id]
        assert version is not None
        return version if loading is None else loading

    def _start(self, command: StartRollouts) -> None:
        limits = self.limits
        assert command.group_id < self._offered
        for rollout_id in command.rollout_ids:
            assert rollout_id == len(self.rollouts), "ids are counters"
            self.rollouts[rollout_id] = Told(
                command.group_id,
                self._samples[command.group_id],
                command.server_id,
                self._weights_of(command.server_id),
                self._now_ns,
            )
            self._samples[command.group_id] += 1
            self._exhausted += self._samples[command.group_id] == limits.group_size
        assert self.count("server", "held") <= limits.max_rollouts_in_flight
        if limits.eta is not None:
            # Paper, eq. 3: floor((N_r - 1) / B) <= i + eta.
            admitted = len(self.rollouts) - self.count("failed", "dropped")
            ahead = (admitted - 1) // limits.train_batch_rollouts
            assert ahead <= self.version + limits.eta, "admitted beyond eta"

    def _train(self, command: StartTrainStep) -> None:
        assert not self._batch, "one step at a time"
        assert command.weight_version == self.version + 1
        ids = command.rollout_ids
        assert len(ids) == len(set(ids)) == self.limits.train_batch_rollouts
        for rollout_id in ids:
            told = self.rollouts[rollout_id]
            assert told.place == "ready", f"rollout {rollout_id} is trained from {told.place}"
            told.place = "training"
            lag = self.version - told.first_version
            assert self.limits.max_lag is None or lag <= self.limits.max_lag
            self.lags[lag] += 1
        if self.groups_whole:
            groups = Counter(self.rollouts[i].group_id for i in ids)
            assert set(groups.values()) == {self.limits.group_size}, "a group trained in part"
        self._batch = ids
