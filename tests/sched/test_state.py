"""The state's transitions, one by one; every step is recounted (see `recount`)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from areal_sched import (
    InvalidCommand,
    Limits,
    UnexpectedEvent,
)
from areal_sched.ids import ServerId
from tests.sched.bench import (
    Bench,
    abort,
    drop,
    failed,
    finished,
    interrupted,
    joined,
    load,
    loaded,
    lost,
    ready,
    resume,
    rewarded,
    start,
    train,
    train_failed,
    trained,
)

# ---- the life of a rollout -------------------------------------------------------------------


def test_a_rollout_is_started_finished_rewarded_and_trained() -> None:
    bench = Bench().started()
    assert [bench.phase(i) for i in range(4)] == ["RUNNING"] * 4
    assert (bench.state.running, bench.state.open_groups) == (4, 2)
    bench(finished(2, tokens=7))
    rollout = bench.rollout(2)
    assert (bench.phase(2), rollout.generated_tokens) == ("FINISHED", 7)
    bench(rewarded(2, 0.5))
    assert (bench.phase(2), rollout.reward) == ("READY", 0.5)
    assert rollout.start_ns < rollout.finish_ns < rollout.ready_ns == bench.state.now_ns
    bench.accepted(0, 1, 3)
    assert list(bench.state.ready) == [2, 0, 1, 3], "in the order they were accepted"
    assert list(bench.state.complete_groups) == [0, 1]
    bench.do(train(1, 0, 1, 2, 3))
    assert (bench.phase(2), rollout.consumed_version) == ("TRAINING", 0)
    assert (bench.state.in_step, bench.state.trainer_ready) == (True, False)
    bench(trained(1))
    assert not bench.state.rollouts
    assert bench.settled == [(i, "TRAINED") for i in range(4)]
    assert rollout.settled_ns == bench.state.now_ns
    assert (bench.state.trained, bench.state.weight_version, bench.state.in_step) == (4, 1, False)
    assert not bench.state.trainer_ready
    assert {0, 1}.isdisjoint(bench.state.groups)
    assert bench(ready(1)).state.trainer_ready


def test_a_failed_step_gives_its_batch_back() -> None:
    bench = Bench(groups_whole=True).started().accepted(0, 1, 2, 3)
    bench.do(train(1, 2, 3))
    assert list(bench.state.complete_groups) == [0]
    bench(train_failed(1))
    assert [bench.phase(i) for i in range(4)] == ["READY"] * 4
    assert (bench.rollout(2).train_ns, bench.rollout(2).consumed_version) == (-1, -1)
    assert list(bench.state.complete_groups) == [0, 1]
    assert (bench.state.weight_version, bench.state.trainer_ready) == (0, False)
    bench(ready(0), train(1, 0, 1, 2, 3))(trained(1))
    assert bench.state.trained == 4


def test_what_was_generated_before_an_interruption_is_kept() -> None:
    bench = Bench().started(servers=1)
    assert bench.state.servers[ServerId(0)].known_kv_tokens == 40
    bench(interrupted(0, (0, 3), (2, 0)))
    assert (bench.state.running, bench.state.in_flight) == (2, 4)
    assert bench.state.servers[ServerId(0)].known_kv_tokens == 20
    assert list(bench.state.interrupted) == [0, 2]
    bench.do(resume(0, 0, 2))
    assert bench.rollout(0).generated_tokens == 3
    assert bench.rollout(0).interruptions == 1
    assert bench.state.servers[ServerId(0)].known_kv_tokens == 43


def test_the_first_version_is_that_of_the_first_token_that_is_kept() -> None:
    bench = Bench().started(servers=2).accepted(0, 1)
    bench.do(train(1, 0, 1))(trained(1), load(0, 1), load(1, 1))
    bench(interrupted(0, (2, 4)), start(2, 4, server_id=0))
    bench(interrupted(1, (3, 0)))(loaded(0, 1))(loaded(1, 1), resume(0, 2), resume(1, 3))
    versions = {i: (bench.rollout(i).first_version, bench.rollout(i).last_version) for i in (2, 3)}
    assert versions == {2: (0, 0), 3: (1, 1)}
    assert bench.rollout(4).first_version == 1, "sent to a loading server: runs on what it loads"
    bench(interrupted(0, (2, 4), version=1))
    assert bench.rollout(2).last_version == 0, "no token since"
    bench.do(resume(0, 2))(interrupted(0, (2, 5), version=1))
    assert bench.rollout(2).last_version == 1


def test_a_lost_server_leaves_its_rollouts_interrupted() -> None:
    bench = Bench().started(servers=2)
    bench(interrupted(0, (0, 3)), resume(0, 0))(lost(0))
    assert list(bench.state.interrupted) == [2, 0], "in the order they came to the server"
    assert (bench.rollout(0).generated_tokens, bench.rollout(0).interruptions) == (3, 2)
    assert (bench.state.running, bench.state.in_flight) == (2, 4)
    bench(lost(1))
    assert (bench.state.least_loaded(), bench.state.least_kv()) == (None, None)
    bench(joined(0), resume(0, 0, 1, 2, 3))
    assert bench.state.servers[ServerId(0)].known_kv_tokens == 43


def test_a_lost_server_forgets_what_it_was_loading() -> None:
    bench = Bench().started(servers=1).accepted(0, 1)
    bench.do(train(1, 0, 1))(trained(1), load(0, 1))(lost(0))(joined(0), load(0, 1))
    bench(loaded(0, 1))
    assert bench.state.servers[ServerId(0)].weight_version == 1


# ---- failures, aborts, drops -----------------------------------------------------------------


def test_a_failed_rollout_is_replaced_before_newer_prompts() -> None:
    bench = Bench().started()
    bench(finished(0))(failed(0))(failed(2))
    assert bench.settled == [(0, "FAILED"), (2, "FAILED")]
    assert list(bench.state.pending)[:3] == [1, 0, 2]
    assert bench.state.groups[0].outstanding == 2
    assert bench.state.admitted == 2
    bench.do(start(1, 4), start(0, 5))
    assert 0 not in bench.state.pending


def test_a_group_is_given_up_after_too_many_failures() -> None:
    limits = Limits(train_batch_rollouts=4, group_size=4, eta=1, max_failures_per_group=1)
    bench = Bench(limits).cluster(groups=1)
    bench.do(start(0, 0, 1, 2)).accepted(0)
    bench(failed(1))
    group = bench.state.groups[0]
    assert (group.unstarted, group.abandoned) == (2, False)
    bench(failed(2))
    assert (group.unstarted, group.outstanding, group.abandoned) == (0, 0, True)
    assert list(bench.state.abandoned_groups) == [0]
    assert 0 not in bench.state.pending
    assert (bench.state.open_groups, len(bench.state.complete_groups)) == (0, 0)
    bench.do(drop(0))
    assert 0 not in bench.state.groups
    assert not bench.state.abandoned_groups


def test_no_failure_is_tolerated_where_the_limit_is_0() -> None:
    limits = Limits(train_batch_rollouts=2, group_size=2, max_failures_per_group=0)
    bench = Bench(limits).cluster(groups=1)
    bench.do(start(0, 0))(failed(0))
    assert 0 not in bench.state.groups


def test_a_group_given_up_while_in_training_comes_back_to_be_dropped() -> None:
    limits = Limits(train_batch_rollouts=2, group_size=2, eta=4, max_failures_per_group=0)
    bench = Bench(limits).started(groups=1).accepted(0)
    bench.do(train(1, 0))(failed(1))
    assert list(bench.state.abandoned_groups) == [0]
    bench(train_failed(1))
    assert bench.phase(0) == "READY"
    assert not bench.state.complete_groups
    bench(ready(0), drop(0))
    assert 0 not in bench.state.groups


def test_a_group_given_up_while_in_training_may_still_be_trained() -> None:
    limits = Limits(train_batch_rollouts=2, group_size=2, eta=4, max_failures_per_group=0)
    bench = Bench(limits).started(groups=1).accepted(0)
    bench.do(train(1, 0))(failed(1))(trained(1))
    assert 0 not in bench.state.groups
    assert not bench.state.abandoned_groups


@pytest.mark.parametrize(
    "settle",
    [
        pytest.param(lambda bench: bench(failed(0)), id="its own event"),
        pytest.param(lambda bench: bench(interrupted(0, (0, 2), (2, 2))), id="interruption"),
        pytest.param(lambda bench: bench(lost(0)), id="loss of the server"),
    ],
)
def test_an_aborted_rollout_is_lost_and_not_replaced(settle: Callable[[Bench], Bench]) -> None:
    bench = Bench().started(servers=2).accepted(1)
    bench.do(abort(0))
    assert (bench.phase(0), bench.state.running) == ("ABORTING", 3)
    settle(bench)
    assert bench.settled == [(0, "FAILED")]
    group = bench.state.groups[0]
    assert (group.failures, group.unstarted, group.outstanding) == (0, 0, 0)
    assert 0 not in bench.state.pending
    assert list(bench.state.complete_groups) == [0], "its sibling is all there is"
    assert bench.state.open_groups == 1


def test_an_abort_that_comes_too_late_is_forgotten() -> None:
    bench = Bench().started()
    bench.do(abort(0))(finished(0))
    assert bench.phase(0) == "FINISHED"
    bench(rewarded(0))
    assert bench.phase(0) == "READY"
    assert bench.settled == []


def test_interrupted_finished_and_ready_rollouts_can_be_dropped() -> None:
    bench = Bench().started(servers=1).accepted(0)
    bench(finished(1))(interrupted(0, (2, 1)), drop(0, 1, 2))
    assert bench.settled == [(0, "DROPPED"), (1, "DROPPED"), (2, "DROPPED")]
    assert (bench.state.dropped, bench.state.admitted) == (3, 1)
    assert 0 not in bench.state.groups
    assert bench.state.groups[1].outstanding == 1
    assert not bench.state.complete_groups


def test_a_group_may_become_complete_by_a_drop() -> None:
    bench = Bench().started().accepted(0)
    bench(finished(1), drop(1))
    assert list(bench.state.complete_groups) == [0]
    bench.do(drop(0))
    assert not bench.state.complete_groups


@pytest.mark.parametrize("late", [rewarded(0), failed(0)])
def test_a_reward_after_the_drop_is_a_late_fact_once(late: object) -> None:
    bench = Bench().started()
    bench(finished(0), drop(0))
    bench(late)  # type: ignore[arg-type]
    assert (bench.state.late_facts, bench.state.failed, bench.state.dropped) == (1, 0, 1)
    with pytest.raises(UnexpectedEvent):
        bench(late)  # type: ignore[arg-type]


# ---- admission -------------------------------------------------------------------------------


def test_admission_follows_equation_3() -> None:
    """N_r <= (i + eta + 1) B: with B = 4, eta = 1 eight may start at version 0."""
    bench = Bench().cluster(groups=8)
    assert bench.state.admission_budget() == bench.state.may_start() == 8
    for i in range(8):
        bench.do(start(i // 2, i))
    assert bench.state.admission_budget() == 0
    with pytest.raises(InvalidCommand, match="allow 0 rollouts"):
        bench.do(start(4, 8))


def test_failed_and_dropped_rollouts_give_their_places_back_and_a_version_brings_a_batch() -> None:
    bench = Bench().cluster(groups=8)
    for i in range(8):
        bench.do(start(i // 2, i))
    bench(failed(0))
    assert bench.state.admission_budget() == 1
    bench(finished(1), drop(1))
    assert bench.state.admission_budget() == 2
    bench.accepted(2, 3, 4, 5).do(train(1, 2, 3, 4, 5))
    assert bench.state.admission_budget() == 2
    bench(trained(1))
    assert bench.state.admission_budget() == 2 + 4


def test_interrupted_rollouts_are_in_flight_and_finished_ones_are_not() -> None:
    limits = Limits(train_batch_rollouts=4, group_size=2, eta=None, max_rollouts_in_flight=4)
    bench = Bench(limits).started()
    assert (bench.state.may_start(), bench.state.admission_budget()) == (0, None)
    bench(interrupted(0, (0, 1)))
    assert bench.state.may_start() == 0
    bench(finished(1))
    assert bench.state.may_start() == 1
