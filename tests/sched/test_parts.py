"""The parts schedulers are made of: starting, batches, training, giving up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from areal_sched import (
    ClusterState,
    Command,
    ConfigError,
    DropRollouts,
    parts,
)
from areal_sched.fold_commands import COMMAND_FOLDS
from areal_sched.routing import router
from benchmarks.recount import recount
from tests.sched.bench import (
    Bench,
    abort,
    drop,
    failed,
    finished,
    interrupted,
    limits_of,
    load,
    loaded,
    ready,
    resume,
    rewarded,
    train,
    trained,
)

# ---- start -----------------------------------------------------------------------------------


def carried_out(state: ClusterState, commands: Iterable[Command]) -> list[Any]:
    """The commands, each shown in the state before the next is asked for, as a controller does."""
    done = []
    for command in commands:
        COMMAND_FOLDS[type(command)](state, command)
        recount(state, groups_whole=False)
        done.append(command)
    return done


def starts(
    state: ClusterState, unit: parts.Unit, most: int | None = None
) -> list[tuple[int, int, int]]:
    """(group, rollout, server) of everything that is started."""
    commands = carried_out(state, parts.start(state, router("least_loaded"), unit, most))
    return [(c.group_id, *c.rollout_ids, c.server_id) for c in commands]


def test_rollouts_start_in_order_of_arrival_on_the_least_loaded_server() -> None:
    state = Bench(limits_of(4, 2, eta=1)).cluster(groups=3).state
    assert starts(state, "rollout", 3) == [(0, 0, 0), (0, 1, 1), (1, 2, 0)]
    assert starts(state, "rollout", 0) == []
    assert starts(state, "rollout") == [(1, 3, 1), (2, 4, 0), (2, 5, 1)]


def test_a_group_starts_whole_or_not_at_all() -> None:
    state = Bench(limits_of(4, 2, eta=1)).cluster(groups=3).state
    assert starts(state, "group", 3) == [(0, 0, 0), (0, 1, 1)]
    assert starts(state, "group", 1) == []


def test_no_more_groups_are_open_than_there_are_places() -> None:
    """A group keeps its place until its last reward, though its rollouts are done."""
    bench = Bench(limits_of(4, 2, max_rollouts_in_flight=5)).cluster(groups=4)
    assert len(starts(bench.state, "group")) == 4
    bench.accepted(0)(finished(1))
    assert starts(bench.state, "group") == []
    bench(rewarded(1))
    assert [group for group, _, _ in starts(bench.state, "group")] == [2, 2]


def test_a_replacement_needs_no_place_of_its_own_and_goes_first() -> None:
    bench = Bench(limits_of(4, 2, max_rollouts_in_flight=4)).cluster(groups=4)
    starts(bench.state, "group")
    bench(failed(1))
    assert [group for group, _, _ in starts(bench.state, "group")] == [0]


def test_nothing_starts_without_a_server() -> None:
    state = Bench().cluster(servers=0).state
    assert starts(state, "group") == starts(state, "rollout") == []


# ---- batch and train -------------------------------------------------------------------------


def test_the_oldest_batch_is_taken() -> None:
    bench = Bench(limits_of(4, 2)).started(groups=3)
    assert parts.batch(bench.state, "rollout") == parts.batch(bench.state, "group") == ()
    bench.accepted(5, 4, 3, 0)
    assert parts.batch(bench.state, "rollout") == (0, 3, 4, 5)
    assert parts.batch(bench.state, "group") == ()
    bench.accepted(1)
    assert parts.batch(bench.state, "rollout") == (0, 1, 3, 4)
    assert parts.batch(bench.state, "group") == (0, 1, 4, 5)


@pytest.mark.parametrize(
    ("unit", "dropped", "taken"),
    [("rollout", (0, 4, 5), (1, 2, 3, 6)), ("group", (0, 1, 4, 5), (2, 3, 6, 7))],
)
def test_what_is_too_old_is_dropped_when_it_would_be_trained(
    unit: parts.Unit, dropped: tuple[int, ...], taken: tuple[int, ...]
) -> None:
    """At version 1 with max_lag 0: rollouts 0, 4, 5 began with version 0, the others with 1."""
    bench = Bench(limits_of(4, 2, max_lag=0)).started(servers=1, groups=5)
    bench(interrupted(0, (1, 0), (2, 0), (3, 0), (6, 0), (7, 0))).accepted(0, 4, 5, 8, 9)
    bench.do(train(1, 8, 9))(trained(1), load(0, 1))(loaded(0, 1), resume(0, 1, 2, 3, 6, 7))
    bench.accepted(1, 2, 3, 6, 7)
    assert list(parts.train(bench.state, unit)) == [], "the trainer is not ready"
    bench(ready(1))
    *drops, last = carried_out(bench.state, parts.train(bench.state, unit))
    assert sorted(x for c in drops for x in c.rollout_ids) == sorted(dropped)
    assert {type(c) for c in drops} == {DropRollouts}
    assert last == train(2, *taken)


def test_training_waits_for_the_trainer_and_a_whole_batch() -> None:
    bench = Bench(limits_of(4, 2)).started().accepted(0, 1, 2)
    assert list(parts.train(bench.state, "rollout")) == []
    bench.accepted(3)
    assert list(parts.train(bench.state, "rollout")) == [train(1, 0, 1, 2, 3)]
    bench.do(train(1, 0, 1))
    assert list(parts.train(bench.state, "rollout")) == []


def test_giving_up_aborts_what_runs_and_drops_what_is_held() -> None:
    bench = Bench(limits_of(4, 2)).started(groups=3).accepted(0, 4)
    bench(finished(1))(interrupted(0, (2, 1))).do(abort(3)).do(train(1, 4))
    rollouts = list(bench.state.rollouts.values())
    assert list(parts.give_up(rollouts)) == [abort(5), drop(0, 1, 2)]
    assert list(parts.give_up([])) == []


def test_options_are_checked() -> None:
    parts.one_of("unit", "group", parts.UNITS)
    parts.flag("barrier", False)
    parts.at_least("x", 1, 1)
    for check in (
        lambda: parts.one_of("unit", "none", parts.UNITS),
        lambda: parts.flag("barrier", 1),
        lambda: parts.at_least("x", "1", 1),
        lambda: parts.at_least("x", 0.5, 1),
    ):
        with pytest.raises(ConfigError, match=r"scheduler\."):
            check()
    with pytest.raises(ConfigError, match=r"scheduler.mode = 'fast'"):
        parts.WeightUpdates("fast", router("least_kv"))  # type: ignore[arg-type]
