"""What each built-in scheduler does in the corners of the contract, by hand."""

from __future__ import annotations

import pytest

from areal_sched import (
    AbortRollouts,
    DropRollouts,
    InterruptRollouts,
)
from areal_sched.ids import RolloutId, ServerId
from tests.sched.bench import (
    abort,
    drop,
    failed,
    finished,
    ids,
    interrupted,
    joined,
    limits_of,
    live,
    load,
    loaded,
    lost,
    prompt,
    ready,
    resume,
    rewarded,
    start,
    train,
    train_failed,
    trained,
)

# ---- schedulers ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["areal", "in_flight"])
def test_a_reward_that_completes_a_stale_batch_brings_new_rollouts(path: str) -> None:
    """The drop frees places under eta; no other event would use them."""
    options = {"mode": "in_place"} if path == "areal" else {}
    limits = limits_of(2, eta=1, max_lag=0)
    run = live(path, limits, servers=1, groups=4, unit="rollout", **options)
    run(finished(0), rewarded(0), finished(1), rewarded(1), trained(1), loaded(0, 1), ready(1))
    run(*(prompt(group_id, 1) for group_id in range(5, 9)))
    assert (run.state.next_rollout_id, run.state.may_start()) == (6, 0)
    run(finished(2), rewarded(2), finished(3))
    assert run(rewarded(3)) == (drop(2, 3), start(7, 6), start(8, 7))


def test_bounded_lag_gives_up_whole_groups_and_replaces_none_of_them() -> None:
    limits = limits_of(2, 2, max_lag=0, eta=1)
    run = live("bounded_lag", limits, servers=1, groups=2)
    run(finished(0), rewarded(0), finished(1), rewarded(1), finished(2), rewarded(2))
    commands = run(trained(1))
    assert commands[:2] == (abort(3), drop(2)), "group 1 began with version 0"
    run(finished(3))
    assert run.state.rollouts.get(RolloutId(3)) is None, "it had finished first: dropped too"
    assert 1 not in run.state.groups
    assert (run.state.failed, run.state.dropped) == (0, 2)


def test_bounded_lag_with_unit_rollout_gives_up_rollouts() -> None:
    limits = limits_of(2, 2, max_lag=0, eta=1)
    run = live("bounded_lag", limits, servers=1, groups=2, unit="rollout", mode="drain")
    run(finished(0), rewarded(0), finished(2), rewarded(2))
    assert abort(1, 3) in run(trained(1))
    run(failed(1), failed(3))
    assert {0, 1}.isdisjoint(run.state.groups)


def test_partial_rollout_stops_trains_and_resumes() -> None:
    run = live("partial_rollout", limits_of(1), groups=3, over_provision=3.0)
    run(finished(0))
    assert run(rewarded(0)) == (
        InterruptRollouts(rollout_ids=ids(2), server_id=ServerId(0)),
        InterruptRollouts(rollout_ids=ids(1), server_id=ServerId(1)),
    )
    assert run(interrupted(0, (2, 3))) == ()
    assert run(interrupted(1, (1, 3))) == (train(1, 0),)
    assert run(lost(0)) == ()
    run(trained(1), interrupted(1))
    assert run(loaded(1, 1))[:2] == (resume(1, 1), resume(1, 2))


def test_partial_rollout_goes_on_when_its_batch_falls_apart_while_it_stops() -> None:
    """Group 0 is given up after the stop, and takes a ready rollout of the batch along."""
    limits = limits_of(2, 2, max_failures_per_group=0)
    run = live("partial_rollout", limits, servers=1, groups=2, unit="rollout", over_provision=2.0)
    assert run.state.running == 4
    run(finished(0), finished(1), rewarded(0), finished(2))
    assert isinstance(run(rewarded(2))[0], InterruptRollouts)
    assert run(failed(1)) == (drop(0),)
    commands = run(interrupted(0, (3, 2)))
    assert commands[0] == resume(0, 3)


def test_partial_rollout_goes_on_also_if_the_last_that_ran_has_finished() -> None:
    """Rollouts 0, 2, 4 are on server 0 and 1, 3, 5 on server 1; 3 escapes the interruption."""
    limits = limits_of(2, 2, max_failures_per_group=0)
    run = live("partial_rollout", limits, servers=2, groups=3, unit="rollout", over_provision=3.0)
    run(finished(0), finished(1), rewarded(0), finished(2))
    run(rewarded(2), failed(1), interrupted(0, (4, 2)), interrupted(1, (5, 2)))
    assert run(finished(3))[0] == resume(0, 4)


def test_partial_rollout_survives_the_loss_of_every_server_while_it_stops() -> None:
    run = live("partial_rollout", limits_of(1), groups=3, over_provision=3.0)
    run(finished(0), rewarded(0), lost(1))
    assert run(lost(0)) == (train(1, 0),)
    assert run(joined(0), joined(1), trained(1)) == (load(0, 1), load(1, 1))
    assert run(loaded(0, 1)) == ()
    assert run(loaded(1, 1))[:2] == (resume(1, 1), resume(0, 2))


def test_partial_rollout_tries_again_after_a_failed_step() -> None:
    run = live("partial_rollout", limits_of(1), groups=3, over_provision=3.0)
    run(finished(0), rewarded(0), interrupted(0, (2, 1)), interrupted(1, (1, 1)))
    run(train_failed(1))
    assert train(1, 0) in run(ready(0))


def test_one_step_off_starts_one_batch_per_step_begun() -> None:
    run = live("one_step_off", limits_of(2, eta=1), servers=1, groups=6)
    assert run.state.next_rollout_id == 2
    run(finished(0), rewarded(0), finished(1))
    commands = run(rewarded(1))
    assert commands[0] == train(1, 0, 1)
    assert run.state.next_rollout_id == 4
    assert run(trained(1)) == (load(0, 1, "drain"),)


def test_synchronous_starts_a_batch_per_version_whatever_eta_allows() -> None:
    run = live("synchronous", limits_of(2, eta=4), servers=1, groups=6)
    assert run.state.next_rollout_id == 2
    run(finished(0), rewarded(0), finished(1))
    assert run(rewarded(1)) == (train(1, 0, 1),)
    assert run(trained(1)) == (load(0, 1, "drain"),)
    assert run(loaded(0, 1)) == (start(2, 2), start(3, 3))


def test_an_abandoned_group_is_aborted_and_dropped() -> None:
    limits = limits_of(4, 4, max_failures_per_group=0)
    run = live("areal", limits, servers=1, groups=1, unit="group")
    run(finished(0), rewarded(0), finished(1))
    commands = run(failed(2))
    assert commands == (AbortRollouts(rollout_ids=ids(3)), DropRollouts(rollout_ids=ids(0, 1)))
    run(finished(3), rewarded(3))
    assert not run.state.groups
    assert run.state.dropped == 3
