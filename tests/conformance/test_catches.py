"""The conformance suite finds what it looks for: schedulers with one fault each do not pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from areal_sched import (
    ClusterView,
    Command,
    ConfigError,
    DropRollouts,
    Event,
    InvalidCommand,
    Limits,
    PromptArrived,
    ReplayDiverged,
    ResumeRollouts,
    RewardComputed,
    Scheduler,
    StartRollouts,
    StartTrainStep,
    load,
    parts,
    replay,
)
from areal_sched.schedulers.areal import Areal
from benchmarks.variations import Refused, accepted, options_of, unit_of
from tests.conformance.choices import Choices, Temper
from tests.conformance.drive import Run, drive

LIMITS = Limits(train_batch_rollouts=4, group_size=2, eta=1, max_rollouts_in_flight=16)


class Faulty(ABC):
    """AReaL, its commands changed on their way out."""

    def __init__(self, limits: Limits) -> None:
        self._inner: Scheduler = Areal(limits, unit="group")

    def decide(self, event: Event, view: ClusterView) -> Iterator[Command]:
        for command in self._inner.decide(event, view):
            yield from self.change(command, view)

    @abstractmethod
    def change(self, command: Command, view: ClusterView) -> Iterable[Command]:
        """What comes out in place of a command."""


class NeverResumes(Faulty):
    def change(self, command: Command, view: ClusterView) -> Iterable[Command]:
        return () if isinstance(command, ResumeRollouts) else (command,)


class NeverTrains(Faulty):
    def change(self, command: Command, view: ClusterView) -> Iterable[Command]:
        return () if isinstance(command, StartTrainStep) else (command,)


class TrainsTwice(Faulty):
    _last: tuple[Any, ...] = ()

    def change(self, command: Command, view: ClusterView) -> Iterable[Command]:
        if isinstance(command, StartTrainStep) and self._last:
            ids = (self._last[0], *command.rollout_ids[1:])
            command = StartTrainStep(weight_version=command.weight_version, rollout_ids=ids)
        if isinstance(command, StartTrainStep):
            self._last = command.rollout_ids
        return (command,)


class TrainsTooFew(Faulty):
    def change(self, command: Command, view: ClusterView) -> Iterable[Command]:
        if isinstance(command, StartTrainStep):
            ids = command.rollout_ids[:-1]
            command = StartTrainStep(weight_version=command.weight_version, rollout_ids=ids)
        return (command,)


class SplitsGroups(Faulty):
    """Trains the first that are ready, whichever group they are of."""

    def decide(self, event: Event, view: ClusterView) -> Iterator[Command]:
        wanted = view.limits.train_batch_rollouts
        if isinstance(event, RewardComputed) and view.trainer_ready and len(view.ready) >= wanted:
            yield StartTrainStep(
                weight_version=type(view.weight_version)(view.weight_version + 1),
                rollout_ids=tuple(view.ready)[:wanted],
            )
        yield from super().decide(event, view)

    def change(self, command: Command, view: ClusterView) -> Iterable[Command]:
        return (command,)


class DropsForever(Faulty):
    """Every batch is dropped when it could be trained."""

    def change(self, command: Command, view: ClusterView) -> Iterable[Command]:
        if isinstance(command, StartTrainStep):
            return (DropRollouts(rollout_ids=command.rollout_ids),)
        return (command,)


class Remembers(Faulty):
    """Decides by something that is not in the journal."""

    _built = 0

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._choose = (min, max)[Remembers._built % 2]
        Remembers._built += 1

    def change(self, command: Command, view: ClusterView) -> Iterable[Command]:
        if isinstance(command, StartRollouts):
            command = StartRollouts(
                group_id=command.group_id,
                rollout_ids=command.rollout_ids,
                server_id=self._choose(view.servers),
            )
        return (command,)


def run_of(scheduler: Scheduler, *, audited: Limits | None = None, limits: Limits = LIMITS) -> Run:
    """A run in which most of what may happen does."""
    temper = Temper(servers=2, fault_rate=8, slow=frozenset({"load"}))
    return drive(
        scheduler,
        limits,
        temper,
        Choices.seeded(7, 2000),
        calm_steps=3,
        groups_whole=True,
        audited=audited,
    )


def test_the_scheduler_without_a_fault_passes() -> None:
    assert run_of(Areal(LIMITS, unit="group")).steps > 3


@pytest.mark.parametrize(
    ("faulty", "error", "message"),
    [
        (NeverResumes, AssertionError, "deadlock"),
        (NeverTrains, AssertionError, "deadlock"),
        (DropsForever, AssertionError, "livelock"),
        (TrainsTwice, InvalidCommand, "is not ready"),
        (TrainsTooFew, AssertionError, "a batch of 3, 4 wanted"),
        (SplitsGroups, AssertionError, "a group trained in part"),
    ],
)
def test_a_faulty_scheduler_is_caught(
    faulty: type[Faulty], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run_of(faulty(LIMITS))


def test_a_scheduler_with_a_memory_outside_the_journal_is_caught_by_replay() -> None:
    run = run_of(Remembers(LIMITS))
    with pytest.raises(ReplayDiverged):
        replay(run.entries, Remembers(LIMITS), LIMITS)


@pytest.mark.parametrize(
    ("stricter", "message"),
    [
        (replace(LIMITS, eta=0), "eta allows"),
        (replace(LIMITS, max_rollouts_in_flight=7), "8 in flight, 7 allowed"),
        (replace(LIMITS, max_lag=0), "lag 1"),
    ],
)
def test_limits_are_counted_apart_from_the_state(stricter: Limits, message: str) -> None:
    """The state enforces the looser limits; what is found, the audit finds."""
    with pytest.raises(AssertionError, match=message):
        run_of(Areal(LIMITS, unit="group"), audited=stricter)


class Demanding(Areal):
    """Refuses most limits."""

    def __init__(self, limits: Limits, *, routing: str = "round_robin", mode: str = "x") -> None:
        parts.one_of("mode", mode, ("x", "drain"))
        if limits.eta in (None, 0) or limits.max_lag is None:
            raise ConfigError("limits.eta and limits.max_lag: expected both, eta >= 1")
        super().__init__(limits, routing=routing)


def test_limits_are_changed_until_the_scheduler_accepts_them() -> None:
    path = f"{__name__}:Demanding"
    limits = accepted(path, replace(LIMITS, eta=0))
    assert (limits.eta, limits.max_lag) == (1, 2)
    assert options_of(path) == {
        "routing": ("least_loaded", "round_robin", "least_kv"),
        "mode": ("drain",),
    }
    assert unit_of(path, {}, limits) is None
    assert unit_of("bounded_lag", {}, limits) == "group"
    assert unit_of("areal", {"unit": "rollout"}, limits) == "rollout"


def test_a_scheduler_that_refuses_everything_is_reported() -> None:
    with pytest.raises(Refused, match="refuses all limits tried"):
        accepted("areal", LIMITS, {"unit": "galaxy"})


def test_prompts_arrive_only_when_they_run_short() -> None:
    run = run_of(load("areal", LIMITS, {"unit": "group"}))
    arrived = sum(isinstance(entry.event, PromptArrived) for entry in run.entries)
    started = len(run.cluster.rollouts) / LIMITS.group_size
    assert started - 4 <= arrived <= started + 4
