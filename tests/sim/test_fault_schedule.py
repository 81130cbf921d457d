"""Each kind of fault of a schedule, at its time and with what follows from it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from analysis.audit import JournalAudit
from analysis.tiling import check_tiling
from areal_sched import (
    Event,
    Limits,
    RewardComputed,
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
    WeightsLoaded,
)
from areal_sim.config.fault_schedule import ScheduledFault
from areal_sim.executor import BACKLOG_GROUPS
from areal_sim.faults import Faults
from areal_sim.simulation import NoServerLeft
from tests.sim.setups import MS, Listed, Ran, begin, costs, setup, simulate, trainer_cost

TWO = Limits(train_batch_rollouts=2, eta=1, max_rollouts_in_flight=4)
"""An answer has 10 tokens of 1 ms, the first of which comes at once: it ends after 9 ms."""


def fault(at_ms: float, kind: str, **more: Any) -> ScheduledFault:
    """A fault; times in milliseconds."""
    for key in ("for_ms", "found_after_ms"):
        if key in more:
            more[key.replace("_ms", "_s")] = more.pop(key) / 1e3
    return ScheduledFault(at_s=at_ms / 1e3, fault=kind, **more)  # type: ignore[arg-type]


def play(*faults: ScheduledFault, path: str = "areal", limits: Limits = TWO, **changes: Any) -> Ran:
    """A run with these faults, held against the laws."""
    made = setup(limits, faults=Faults(schedule=faults), **{"steps": 3} | changes)
    run = simulate(made, path)
    JournalAudit(limits, backlog_groups=BACKLOG_GROUPS).read(run.entries)
    if not any(one.fault == "servers_join" for one in faults):
        check_tiling(run.recorder)
    return run


def times(run: Ran, kind: type[Event]) -> list[float]:
    """When events of a kind were handled, in milliseconds."""
    return [e.now_ns / MS for e in run.entries if isinstance(e.event, kind)]


def test_a_lost_server_is_back_when_its_time_is_over() -> None:
    run = play(fault(4, "server_lost", server=1, for_ms=2), servers=2)
    assert times(run, ServerLost) == [4]
    assert times(run, ServerJoined) == [0, 0, 6]
    assert run.simulation.faults.happened == {"server_lost": 1}


def test_a_server_that_is_down_is_not_lost_again() -> None:
    twice = (fault(4, "server_lost", server=1, for_ms=9), fault(6, "server_lost", server=1))
    run = play(*twice, servers=2)
    assert times(run, ServerLost) == [4]
    assert times(run, ServerJoined) == [0, 0, 13]
    assert run.simulation.faults.happened == {"server_lost": 1}


def test_losses_drawn_at_random_and_scheduled_ones_do_not_meet() -> None:
    schedule = tuple(fault(at, "server_lost", server=at % 2, for_ms=3) for at in range(1, 40, 2))
    faults = Faults(
        server_mean_time_between_failures_s=0.004, server_repair_s=0.002, schedule=schedule
    )
    run = simulate(setup(TWO, servers=2, steps=8, faults=faults), "areal")
    JournalAudit(TWO).read(run.entries)
    assert len(times(run, ServerLost)) > 5


def test_a_hung_server_is_silent_until_it_is_found() -> None:
    run = play(fault(4, "server_hung", server=1, found_after_ms=30, for_ms=5), servers=2)
    assert times(run, ServerLost) == [34]
    assert times(run, ServerJoined) == [0, 0, 39]
    on_it = {
        i for e in run.entries for c in e.commands if getattr(c, "server_id", None) == 1
        for i in getattr(c, "rollout_ids", ())
    }  # fmt: skip
    finished = [e for e in run.entries if isinstance(e.event, RolloutFinished)]
    early = [e.event.rollout_id for e in finished if e.now_ns < 34 * MS]  # type: ignore[union-attr]
    assert on_it
    assert on_it.isdisjoint(early)


def test_a_hung_server_may_die_before_it_is_found() -> None:
    hung = fault(4, "server_hung", server=1, found_after_ms=30, for_ms=5)
    run = play(hung, fault(10, "server_lost", server=1, for_ms=1), servers=2)
    assert times(run, ServerLost) == [10]
    assert times(run, ServerJoined) == [0, 0, 11]


def test_a_hung_server_loads_no_weights() -> None:
    run = play(
        fault(1, "server_hung", server=1, found_after_ms=40),
        path="in_flight",
        servers=2,
        costs=costs(load_s=0.001),
    )
    loaded = {e.event.server_id for e in run.entries if isinstance(e.event, WeightsLoaded)}
    assert loaded == {0}


def test_a_colocated_trainer_waits_for_a_hung_server_until_that_is_found() -> None:
    run = play(
        fault(8, "server_hung", server=1, found_after_ms=30),
        path="synchronous",
        servers=2,
        colocated=True,
        costs=costs(trainer=trainer_cost(0.002)),
        steps=1,
        limits=Limits(train_batch_rollouts=2, eta=0),
    )
    # Its answer begins again on the other when the loss is found, and is trained.
    assert times(run, TrainStepFinished) == [38 + 9 + 2]


def test_a_slow_server_is_slow_from_step_to_step() -> None:
    one = Limits(train_batch_rollouts=1, eta=0)
    run = play(fault(4.5, "server_slow", server=0, factor=3, for_ms=6), limits=one, steps=1)
    # 5 steps by 5 ms, two of 3 ms each by 11 ms, then two of 1 ms.
    assert times(run, RolloutFinished) == [13]


def test_slow_for_two_reasons_is_slow_twice_and_stays_so_over_a_loss() -> None:
    one = Limits(train_batch_rollouts=1, eta=0)
    run = play(
        fault(0, "server_slow", server=0, factor=2),
        fault(0, "server_slow", server=0, factor=1.5, for_ms=100),
        fault(0, "server_lost", server=0, for_ms=10),
        limits=one,
        steps=1,
    )
    assert times(run, RolloutFinished) == [10 + 9 * 3]


def test_slow_weights_are_slow_while_it_lasts() -> None:
    run = play(
        fault(0, "weights_slow", factor=5, for_ms=12),
        costs=costs(load_s=0.002),
        limits=Limits(train_batch_rollouts=1, eta=0),
    )
    assert times(run, TrainStepFinished)[0] == 9
    assert times(run, WeightsLoaded)[:2] == [9 + 10, 9 + 10 + 9 + 2]


def test_servers_join_with_the_newest_weights_and_take_their_share() -> None:
    limits = Limits(train_batch_rollouts=4, eta=1)
    run = play(fault(12, "servers_join", count=2), limits=limits, steps=6)
    joined = [e.event for e in run.entries if isinstance(e.event, ServerJoined)]
    assert [(event.server_id, event.weight_version) for event in joined] == [(0, 0), (1, 2), (2, 2)]
    started = [
        (e.now_ns / MS, c.server_id)
        for e in run.entries
        for c in e.commands
        if isinstance(c, StartRollouts)
    ]
    assert {server for at_ms, server in started if at_ms < 12} == {0}
    assert {server for at_ms, server in started if at_ms > 12} == {0, 1, 2}


def test_a_trainer_lost_in_a_step_begins_it_again() -> None:
    slow = costs(trainer=trainer_cost(0.020))
    run = play(fault(15, "trainer_lost", for_ms=7), costs=slow)
    assert times(run, TrainStepFailed) == [15]
    assert times(run, TrainerReady)[:2] == [0, 22]
    assert times(run, TrainStepFinished)[0] == 22 + 20
    first, again = run.batches()[:2]
    assert first == again
    activities = [(a, int(n)) for a, n in zip(*_trainer(run), strict=True)]
    expected = (("idle", 9), ("overhead", 6), ("down", 7), ("overhead", 20))
    assert activities[:4] == [(name, ms * MS) for name, ms in expected]


def _trainer(run: Ran) -> tuple[list[str], Any]:
    from analysis.recorder import TRAINER_ACTIVITIES

    spans = run.recorder.trainer_spans
    names = [TRAINER_ACTIVITIES[int(a)] for a in spans["activity"]]
    return names, spans["end_ns"] - spans["start_ns"]


def test_an_idle_trainer_is_missed_when_a_step_begins() -> None:
    run = play(fault(1, "trainer_lost", for_ms=7), costs=costs(trainer=trainer_cost(0.020)))
    assert times(run, TrainStepFailed) == [9]
    assert times(run, TrainerReady)[:2] == [0, 16]


def test_a_trainer_lost_while_it_saves_has_trained() -> None:
    run = play(fault(12, "trainer_lost", for_ms=7), save_s=lambda version, since: 0.010)
    assert times(run, TrainStepFailed) == []
    assert times(run, TrainStepFinished)[0] == 9
    assert times(run, TrainerReady)[:2] == [0, 19]


def test_a_trainer_that_is_down_is_not_lost_again() -> None:
    twice = (fault(15, "trainer_lost", for_ms=7), fault(18, "trainer_lost", for_ms=70))
    run = play(*twice, costs=costs(trainer=trainer_cost(0.020)))
    assert times(run, TrainStepFailed) == [15]
    assert run.simulation.faults.happened == {"trainer_lost": 1}


@pytest.mark.parametrize("at_ms", [8, 9, 9.5, 10, 10.5, 13, 14, 20])
def test_a_colocated_trainer_gives_the_gpus_back_when_it_is_lost(at_ms: float) -> None:
    """Whether it waits for them (a step ends at 10 ms), switches or trains."""
    run = play(
        fault(at_ms, "trainer_lost", for_ms=7),
        servers=2,
        colocated=True,
        costs=costs(trainer=trainer_cost(0.005), switch_s=0.003),
    )
    assert len(times(run, TrainStepFailed)) <= 1
    failed = [int(t * MS) for t in times(run, TrainStepFailed)]
    spans = run.recorder.server_spans
    from analysis.recorder import SERVER_ACTIVITIES

    lent = spans["activity"] == SERVER_ACTIVITIES.index("lent")
    for failed_ns in failed:
        assert not ((spans["start_ns"] < failed_ns) & (spans["end_ns"] > failed_ns) & lent).any()


def test_failed_rewards_are_replaced_by_answers_as_long() -> None:
    lengths = (3, 10)
    run = play(
        fault(0, "rewards_failed", count=2),
        limits=Limits(train_batch_rollouts=2, group_size=2, eta=0),
        source=Listed(lambda group, sample: lengths[sample]),
        steps=1,
    )
    failed = [e.event for e in run.entries if isinstance(e.event, RolloutFailed)]
    assert [event.reason for event in failed] == ["reward: its worker was lost"] * 2
    assert times(run, RolloutFailed) == [2, 9 - 5]  # 3 tokens, again 3 tokens
    assert times(run, TrainStepFinished) == [9]


def test_a_group_that_is_given_up_makes_place_for_another() -> None:
    """Prompts do not run short, however many groups are given up before all of them is begun."""
    limits = Limits(
        train_batch_rollouts=5,
        group_size=5,
        eta=None,
        max_rollouts_in_flight=5,
        max_failures_per_group=0,
    )
    # First answers come at once and make place for the next group's, whose reward fails when two
    # of it are begun.
    source = Listed(lambda group, sample: 10 if sample else 1)
    run = play(
        fault(0, "rewards_failed", count=200),
        limits=limits,
        source=source,
        reward_service_s=0.0005,
        reward_workers=100,
    )
    begun = Counter(
        c.group_id for e in run.entries for c in e.commands if isinstance(c, StartRollouts)
    )
    assert Counter(begun.values())[2] >= 100
    assert len(run.simulation.state.pending) == BACKLOG_GROUPS


def test_replacements_bring_no_further_prompts() -> None:
    limits = Limits(train_batch_rollouts=1, eta=None, max_failures_per_group=1000)
    run = play(fault(0, "rewards_failed", count=200), limits=limits, steps=5)
    assert run.simulation.state.failed == 200
    assert len(run.simulation.state.pending) == BACKLOG_GROUPS


def test_late_rewards_come_late() -> None:
    limits = Limits(train_batch_rollouts=2, eta=0)
    run = play(fault(5, "rewards_late", count=1, for_ms=30), limits=limits, steps=2)
    assert times(run, RewardComputed)[:2] == [9, 39]
    assert times(run, TrainStepFinished)[0] == 39


def test_a_broken_connection_keeps_what_was_generated() -> None:
    run = play(fault(4.5, "connections_lost", server=0, count=1), steps=1)
    cut = [e for e in run.entries if isinstance(e.event, RolloutsInterrupted)]
    assert cut[0].now_ns == 5 * MS
    assert cut[0].event.progress == ((0, 6),)  # type: ignore[union-attr]


def test_failed_rollouts_are_the_oldest() -> None:
    run = play(fault(4.5, "rollouts_failed", server=0, count=2))
    failed = [e for e in run.entries if isinstance(e.event, RolloutFailed)]
    assert [(e.now_ns / MS, e.event.rollout_id) for e in failed] == [(5, 0), (5, 1)]  # type: ignore[union-attr]


@pytest.mark.parametrize("also_s", [None, 0.05])
def test_without_servers_for_ever_the_run_says_so(also_s: float | None) -> None:
    """Also where servers are lost at random beside: those that are gone are not waited for."""
    schedule = tuple(fault(4, "server_lost", server=number) for number in (0, 1))
    faults = Faults(schedule=schedule, server_mean_time_between_failures_s=also_s)
    run = begin(setup(TWO, servers=2, faults=faults), "areal")
    with pytest.raises(NoServerLeft, match=r"no server is left at 0\.004 s, and none will be back"):
        run.simulation.run(10_000)
    run.end()
    check_tiling(run.recorder)


@pytest.mark.parametrize("path", ["areal", "synchronous", "partial_rollout", "bounded_lag"])
def test_everything_at_one_instant(path: str) -> None:
    kinds = (
        fault(9, "server_hung", server=0, found_after_ms=0, for_ms=0),
        fault(9, "server_lost", server=1, for_ms=1),
        fault(9, "trainer_lost", for_ms=0),
        fault(9, "rewards_failed", count=1),
        fault(9, "rewards_late", count=1, for_ms=0),
        fault(9, "weights_slow", factor=2, for_ms=0),
        fault(9, "connections_lost", server=2, count=2),
        fault(9, "rollouts_failed", server=2),
        fault(9, "server_slow", server=2, factor=2, for_ms=0),
    )
    limits = Limits(train_batch_rollouts=4, eta=1, max_lag=2, max_rollouts_in_flight=9)
    run = play(*kinds, path=path, limits=limits, servers=3, costs=costs(load_s=0.001))
    assert len(times(run, TrainStepFinished)) == 3
    steps = [c for e in run.entries for c in e.commands if isinstance(c, StartTrainStep)]
    assert len(steps) >= 3
