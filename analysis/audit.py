"""The laws of a run, counted once more from its journal's entries and nothing else.

1. A rollout is in one place at a time and is settled once: trained, failed or dropped. None is
   trained twice, or after it failed or was dropped. Ids are counters.
2. Nothing starts beyond eta (arXiv 2505.24298, eq. 3) or ``max_rollouts_in_flight``, nothing is
   trained beyond ``max_lag``, and every batch has ``train_batch_rollouts`` rollouts.
3. One training step at a time; versions count up by one. A step that failed has its batch ready
   again.
4. Servers load published weights, one version at a time; a lost one says nothing more.
5. Time does not run backwards, and prompts do not run short.

The state (`areal_sched.state`) refuses most of what would break these. This is the second opinion:
it shares no code with it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from analysis.errors import AnalysisError
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

SETTLED = ("trained", "failed", "dropped")


class LawBroken(AnalysisError):
    """A law of every run does not hold in a journal: a bug of scheduler, executor or state."""


@dataclass
class Told:
    """What the journal tells of one rollout.

    Attributes:
        place: server, held, reward, ready, training, or one of `SETTLED`.
        sample: its number among the rollouts of its group, replacements included.
        stint_ns, stint_tokens: when it came to its present server, and with how many tokens.
        aborting: an abort is on its way.
    """

    rollout_id: int
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
    """Takes entries one by one and says, at each, what does not hold.

    Args:
        limits: what must be kept.
        groups_whole: each group must be trained in one step.
        backlog_groups: so many prompts are on offer beyond those started, at the end of every
            instant; 0 does not look.

    Attributes:
        rollouts: all that were ever started.
        places: how many of them are where.
        lags: how often a trajectory of each lag was trained.
        finished: every answer that ended, in order, with what was told of it then.
        stints: (nanoseconds, tokens made in them) of every stint on a server whose end was told.
        version: training steps finished.
        steps_failed: training steps that failed.
        homeless: rollouts whose server was lost under them, counted each time.
    """

    limits: Limits
    groups_whole: bool = False
    backlog_groups: int = 0
    rollouts: dict[int, Told] = field(default_factory=dict)
    places: Counter[str] = field(default_factory=Counter)
    lags: Counter[int] = field(default_factory=Counter)
    finished: list[tuple[Told, RolloutFinished]] = field(default_factory=list)
    stints: list[tuple[int, int]] = field(default_factory=list)
    version: int = 0
    steps_failed: int = 0
    homeless: int = 0
    _batch: tuple[int, ...] = ()
    _now_ns: int = 0
    _servers: dict[int, list[int | None]] = field(default_factory=dict)  # version, loading
    _offered: int = 0
    _samples: Counter[int] = field(default_factory=Counter)
    _failures: Counter[int] = field(default_factory=Counter)
    _exhausted: set[int] = field(default_factory=set)
    _timers: set[int] = field(default_factory=set)
    _on_server: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))

    def read(self, entries: Iterable[Entry]) -> JournalAudit:
        """Check all entries in order.

        Raises:
            LawBroken: a law does not hold; the message says of which entry and rollout.
        """
        for entry in entries:
            self.take(entry)
        return self

    def take(self, entry: Entry) -> None:
        """Check the next entry.

        Raises:
            LawBroken: as `read`.
        """
        try:
            if entry.error is not None:
                raise LawBroken(f"the run broke off: {entry.error}")
            if entry.now_ns > self._now_ns:
                # An instant is over: the data loader has made up for the groups that were started.
                on_offer = self._offered - len(self._exhausted)
                if on_offer < self.backlog_groups:
                    raise LawBroken(f"{on_offer} groups are on offer")
            if entry.now_ns < self._now_ns:
                raise LawBroken("time runs backwards")
            self._now_ns = entry.now_ns
            self._event(entry.event)
            for command in entry.commands:
                self._command(command)
        except (LawBroken, KeyError) as error:
            told = f"unknown: {error}" if isinstance(error, KeyError) else error
            raise LawBroken(
                f"line {entry.line}, {entry.now_ns} ns, {entry.event}: {told}"
            ) from None

    def count(self, *places: str) -> int:
        """Rollouts now in these places."""
        return sum(self.places[place] for place in places)

    def live(self) -> list[int]:
        """Rollouts that are not settled."""
        return [i for i, told in self.rollouts.items() if told.place not in SETTLED]

    def _move(self, told: Told, place: str, *allowed: str) -> None:
        before = told.place
        if before not in allowed:
            raise LawBroken(f"{told} moves to {place}, not from {' or '.join(allowed)}")
        if before == "server":
            self._on_server[told.server_id].discard(told.rollout_id)
            told.aborting = False
        self.places[before] -= 1
        self.places[place] += 1
        told.place = place

    # ---- events --------------------------------------------------------------------------------

    def _event(self, event: Event) -> None:
        match event:
            case RolloutFinished():
                told = self.rollouts[event.rollout_id]
                if told.place != "server":
                    raise LawBroken(f"{told} is on no server")
                made_by = self._servers[told.server_id][0]
                if event.weight_version != made_by:
                    raise LawBroken(f"the server has weights {made_by}")
                self._report(told, event.generated_tokens)
                self._move(told, "reward", "server")
                self.finished.append((told, event))
            case RewardComputed():
                told = self.rollouts[event.rollout_id]
                if told.place != "dropped":
                    self._move(told, "ready", "reward")
            case RolloutsInterrupted():
                for rollout_id, tokens in event.progress:
                    told = self.rollouts[rollout_id]
                    if not (
                        (told.place, told.server_id) == ("server", event.server_id)
                        and tokens >= told.tokens
                        and event.weight_version == self._servers[event.server_id][0]
                    ):
                        raise LawBroken(f"{told} was interrupted with {tokens} tokens")
                    self._report(told, tokens)
                    self._leave(told)
            case RolloutFailed():
                self._failed(self.rollouts[event.rollout_id])
            case ServerJoined():
                if event.server_id in self._servers:
                    raise LawBroken("it is there already")
                if event.weight_version > self.version:
                    raise LawBroken(f"published is {self.version}")
                self._servers[event.server_id] = [event.weight_version, None]
            case ServerLost():
                del self._servers[event.server_id]
                for homeless in sorted(self._on_server.pop(event.server_id, ())):
                    self.homeless += 1
                    self._leave(self.rollouts[homeless])
            case PromptArrived():
                if event.group_id != self._offered:
                    raise LawBroken(f"group {self._offered} is next")
                if event.group_size != self.limits.group_size:
                    raise LawBroken("of another size")
                self._offered += 1
            case WeightsLoaded():
                server = self._servers[event.server_id]
                if server[1] != event.weight_version:
                    raise LawBroken(f"it was loading {server[1]}")
                server[:] = [event.weight_version, None]
            case TrainStepFinished():
                if not self._batch:
                    raise LawBroken("there is no step in progress")
                if event.weight_version != self.version + 1:
                    raise LawBroken(f"it makes {self.version + 1}")
                self.version += 1
                for trained in self._batch:
                    self._move(self.rollouts[trained], "trained", "training")
                self._batch = ()
            case TrainStepFailed():
                if not self._batch:
                    raise LawBroken("there is no step in progress")
                if event.weight_version != self.version + 1:
                    raise LawBroken(f"it makes {self.version + 1}")
                self.steps_failed += 1
                for kept in self._batch:
                    self._move(self.rollouts[kept], "ready", "training")
                self._batch = ()
            case TrainerReady():
                if event.weight_version != self.version:
                    raise LawBroken(f"the version is {self.version}")
                if self._batch:
                    raise LawBroken("a step is in progress")
            case TimerFired():
                if event.timer_id not in self._timers:
                    raise LawBroken("no such timer is set")
                self._timers.remove(event.timer_id)

    def _failed(self, told: Told) -> None:
        if told.place == "dropped":
            return  # its reward failed when nobody waited for it any more
        if not told.aborting:
            # It is replaced, until there were too many.
            self._failures[told.group_id] += 1
            if self._failures[told.group_id] > self.limits.max_failures_per_group:
                self._exhausted.add(told.group_id)
        self._move(told, "failed", "server", "reward")

    def _report(self, told: Told, tokens: int) -> None:
        """A stint ends, and how far the answer came is told."""
        self.stints.append((self._now_ns - told.stint_ns, tokens - told.stint_tokens))
        told.tokens = tokens

    def _leave(self, told: Told) -> None:
        """A rollout is on no server any more."""
        self._move(told, "failed" if told.aborting else "held", "server")

    # ---- commands ------------------------------------------------------------------------------

    def _command(self, command: Command) -> None:
        match command:
            case StartRollouts():
                self._start(command)
            case ResumeRollouts():
                for rollout_id in command.rollout_ids:
                    told = self.rollouts[rollout_id]
                    self._move(told, "server", "held")
                    told.server_id = command.server_id
                    self._on_server[command.server_id].add(rollout_id)
                    told.stint_ns, told.stint_tokens = self._now_ns, told.tokens
                    if told.tokens == 0:
                        told.first_version = self._weights_of(command.server_id)
            case InterruptRollouts():
                for rollout_id in command.rollout_ids:
                    told = self.rollouts[rollout_id]
                    if told.place != "server":
                        raise LawBroken(f"{told} is interrupted")
            case AbortRollouts():
                for rollout_id in command.rollout_ids:
                    told = self.rollouts[rollout_id]
                    if not (told.place == "server" and not told.aborting):
                        raise LawBroken(f"{told} is aborted")
                    told.aborting = True
            case DropRollouts():
                for rollout_id in command.rollout_ids:
                    self._move(self.rollouts[rollout_id], "dropped", "held", "reward", "ready")
            case LoadWeights():
                server = self._servers[command.server_id]
                held, loading = server
                assert held is not None
                if not (loading is None and held < command.weight_version <= self.version):
                    raise LawBroken(
                        f"{command}: it has {held}, loads {loading}, published is {self.version}"
                    )
                server[1] = command.weight_version
            case StartTrainStep():
                self._train(command)
            case SetTimer():
                if command.fire_at_ns < self._now_ns:
                    raise LawBroken(f"{command} is past")
                self._timers.add(command.timer_id)

    def _weights_of(self, server_id: int) -> int:
        """Weights that make the first token of what is sent there now."""
        version, loading = self._servers[server_id]
        assert version is not None
        return version if loading is None else loading

    def _start(self, command: StartRollouts) -> None:
        limits, group_id = self.limits, command.group_id
        if group_id >= self._offered:
            raise LawBroken(f"group {group_id} was not offered")
        for rollout_id in command.rollout_ids:
            if rollout_id != len(self.rollouts):
                raise LawBroken(f"{command}: ids are counters")
            self.rollouts[rollout_id] = Told(
                rollout_id,
                group_id,
                self._samples[group_id],
                command.server_id,
                self._weights_of(command.server_id),
                self._now_ns,
            )
            self.places["server"] += 1
            self._on_server[command.server_id].add(rollout_id)
            self._samples[group_id] += 1
        wanted = limits.group_size + self._failures[group_id]
        if self._samples[group_id] > wanted:
            raise LawBroken(f"group {group_id} has more than {wanted}")
        if self._samples[group_id] == wanted:
            self._exhausted.add(group_id)
        in_flight = self.count("server", "held")
        if in_flight > limits.max_rollouts_in_flight:
            raise LawBroken(f"{in_flight} are in flight")
        if limits.eta is not None:
            # Paper, eq. 3: floor((N_r - 1) / B) <= i + eta.
            admitted = len(self.rollouts) - self.count("failed", "dropped")
            ahead = (admitted - 1) // limits.train_batch_rollouts
            if ahead > self.version + limits.eta:
                raise LawBroken(f"{admitted} admitted, beyond eta")

    def _train(self, command: StartTrainStep) -> None:
        limits, ids = self.limits, command.rollout_ids
        if self._batch:
            raise LawBroken("one step at a time")
        if command.weight_version != self.version + 1:
            raise LawBroken(f"{self.version + 1} is next")
        size = len(set(ids))
        if not (len(ids) == size == limits.train_batch_rollouts):
            raise LawBroken(
                f"a batch of {len(ids)} ({size} different) instead of {limits.train_batch_rollouts}"
            )
        for rollout_id in ids:
            told = self.rollouts[rollout_id]
            self._move(told, "training", "ready")
            lag = self.version - told.first_version
            if not (limits.max_lag is None or lag <= limits.max_lag):
                raise LawBroken(f"{told} has lag {lag}")
            self.lags[lag] += 1
        if self.groups_whole:
            groups = Counter(self.rollouts[i].group_id for i in ids)
            parted = [group for group, count in groups.items() if count != limits.group_size]
            if parted:
                raise LawBroken(f"groups {parted} are trained in part")
        self._batch = ids
