"""The state keeps its counts under any legal commands at all, not only those of good schedulers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from areal_sched import (
    AbortRollouts,
    ClusterState,
    Command,
    Controller,
    DropRollouts,
    Entry,
    Event,
    InterruptRollouts,
    Limits,
    LoadWeights,
    Phase,
    ResumeRollouts,
    SetTimer,
    StartRollouts,
    StartTrainStep,
    UpdateMode,
    replay,
)
from areal_sched.ids import RolloutId, TimerId, WeightVersion
from benchmarks.recount import recount
from tests.conformance.audit import Audit
from tests.conformance.choices import Choices, Temper
from tests.conformance.fake_cluster import FakeCluster

T = TypeVar("T")

MODES: tuple[UpdateMode, ...] = ("interrupt", "in_place", "drain")


class Anything:
    """Answers every event with up to three legal commands, whatever they may be good for."""

    def __init__(self, choices: Choices) -> None:
        self._choices = choices
        self._timers = 0

    def decide(self, event: Event, view: ClusterState) -> Iterator[Command]:
        makers: tuple[Callable[[ClusterState], Command | None], ...] = (
            self._start,
            self._start,
            self._start,
            self._train,
            self._resume,
            self._resume,
            self._load,
            self._interrupt,
            self._abort,
            self._drop,
            self._timer,
        )
        for _ in range(self._choices.below(4)):
            command = self._one(makers)(view)
            if command is not None:
                yield command
                recount(view, groups_whole=False)

    def _one(self, items: Iterable[T]) -> T:
        pool = list(items)
        return pool[self._choices.below(len(pool))]

    def _some(self, items: Iterable[T]) -> tuple[T, ...]:
        """A part of the items, in any order."""
        pool = list(items)
        count = self._choices.below(len(pool) + 1)
        return tuple(pool.pop(self._choices.below(len(pool))) for _ in range(count))

    def _start(self, view: ClusterState) -> Command | None:
        free = view.may_start()
        if not view.pending or not view.servers or free < 1:
            return None
        group = self._one(view.pending.values())
        count = 1 + self._choices.below(min(group.unstarted, free))
        first = view.next_rollout_id
        return StartRollouts(
            group_id=group.group_id,
            rollout_ids=tuple(RolloutId(first + i) for i in range(count)),
            server_id=self._one(view.servers),
        )

    def _resume(self, view: ClusterState) -> Command | None:
        rollout_ids = self._some(view.interrupted)
        if not rollout_ids or not view.servers:
            return None
        return ResumeRollouts(rollout_ids=rollout_ids, server_id=self._one(view.servers))

    def _interrupt(self, view: ClusterState) -> Command | None:
        if not view.servers:
            return None
        server = self._one(view.servers.values())
        some = self._some(server.rollouts)
        return InterruptRollouts(rollout_ids=some, server_id=server.server_id) if some else None

    def _in_phase(self, view: ClusterState, *phases: Phase) -> tuple[RolloutId, ...]:
        return self._some(r.rollout_id for r in view.rollouts.values() if r.phase in phases)

    def _abort(self, view: ClusterState) -> Command | None:
        some = self._in_phase(view, Phase.RUNNING)
        return AbortRollouts(rollout_ids=some) if some else None

    def _drop(self, view: ClusterState) -> Command | None:
        some = self._in_phase(view, Phase.INTERRUPTED, Phase.FINISHED, Phase.READY)
        return DropRollouts(rollout_ids=some[:3]) if some else None

    def _train(self, view: ClusterState) -> Command | None:
        some = self._some(view.ready)
        if not some or not view.trainer_ready:
            return None
        version = WeightVersion(view.weight_version + 1)
        return StartTrainStep(weight_version=version, rollout_ids=some)

    def _load(self, view: ClusterState) -> Command | None:
        old = [s for s in view.servers.values() if s.loading is None]
        old = [s for s in old if s.weight_version < view.weight_version]
        if not old:
            return None
        server = self._one(old)
        newer = range(server.weight_version + 1, view.weight_version + 1)
        return LoadWeights(
            server_id=server.server_id,
            weight_version=WeightVersion(self._one(newer)),
            mode=self._one(MODES),
        )

    def _timer(self, view: ClusterState) -> Command | None:
        self._timers += 1
        fire_at_ns = view.now_ns + self._choices.below(256)
        return SetTimer(timer_id=TimerId(self._timers), fire_at_ns=fire_at_ns)


def run(limits: Limits, temper: Temper, seed: int, events: int) -> tuple[list[Entry], FakeCluster]:
    """So many events, or until nothing more can happen."""
    entries: list[Entry] = []

    def record(now_ns: int, event: Any, commands: Any, error: str | None) -> None:
        entries.append(Entry(len(entries) + 2, now_ns, event, commands, error))

    scheduler: Any = Anything(Choices.seeded(seed + 1, 20 * events))
    controller = Controller(scheduler, limits, record)
    cluster = FakeCluster(controller.state, temper, Choices.seeded(seed, 20 * events))
    audit = Audit(cluster, limits, groups_whole=False, full_batches=False)
    for _ in range(events):
        event = cluster.next_event()
        if event is None:
            break
        for command in controller.handle(event, now_ns=cluster.now_ns):
            audit.before_command(command, controller.state)
            cluster.execute(command)
        audit.after_event(controller.state)
    return entries, cluster


@settings(max_examples=60)
@given(
    group_size=st.integers(1, 4),
    eta=st.sampled_from((0, 1, None)),
    max_failures=st.integers(0, 3),
    fault_rate=st.sampled_from((0, 20, 60)),
    servers=st.integers(1, 3),
    slow=st.frozensets(st.sampled_from(("load", "reward", "abort", "interrupt", "step"))),
    seed=st.integers(0, 2**32 - 1),
)
def test_counts_agree_after_any_legal_command_and_any_legal_event(
    group_size: int,
    eta: int | None,
    max_failures: int,
    fault_rate: int,
    servers: int,
    slow: frozenset[str],
    seed: int,
) -> None:
    limits = Limits(
        train_batch_rollouts=2 * group_size,
        group_size=group_size,
        eta=eta,
        max_rollouts_in_flight=5 * group_size,
        max_failures_per_group=max_failures,
    )
    temper = Temper(servers=servers, fault_rate=fault_rate, slow=slow)
    entries, _ = run(limits, temper, seed, 250)
    again: Any = Anything(Choices.seeded(seed + 1, 20 * 250))
    assert replay(entries, again, limits) == len(entries)


def test_most_of_what_can_happen_does() -> None:
    """Or the test above would show little."""
    limits = Limits(train_batch_rollouts=4, group_size=2, eta=None, max_rollouts_in_flight=12)
    seen: set[str] = set()
    late_facts = 0
    for seed in range(12):
        temper = Temper(servers=2, fault_rate=20, slow=frozenset({"reward", "load"}))
        entries, cluster = run(limits, temper, seed, 400)
        late_facts += cluster.late_facts
        for entry in entries:
            seen.add(type(entry.event).__name__)
            seen.update(type(command).__name__ for command in entry.commands)
    assert late_facts
    assert len(seen) == 12 + 8, "every event and every command there is"
