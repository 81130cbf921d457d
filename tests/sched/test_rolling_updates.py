"""Updates of a few servers at a time: who is next, and what a loss or a new version changes."""

from __future__ import annotations

from typing import Any

import pytest

from areal_sched import ConfigError, Limits, UpdateMode, load
from tests.sched.bench import (
    Live,
    finished,
    interrupted,
    joined,
    limits_of,
    live,
    loaded,
    lost,
    prompt,
    ready,
    resume,
    rewarded,
    start,
    train,
    trained,
)
from tests.sched.bench import load as load_weights


def rolling(servers: int, at_once: int = 1, *, groups: int | None = None, **more: Any) -> Live:
    """Servers with a rollout each, or so many groups of one; batches of one."""
    return live(
        "areal",
        limits_of(1, eta=8),
        servers=servers,
        groups=servers if groups is None else groups,
        servers_at_once=at_once,
        **more,
    )


def test_one_server_loads_at_a_time_and_goes_on_by_itself() -> None:
    run = rolling(3)
    run(finished(0), rewarded(0))
    assert run(trained(1)) == (load_weights(0, 1),)
    assert run(interrupted(0)) == ()
    assert run(loaded(0, 1)) == (load_weights(1, 1),)
    run(interrupted(1, (1, 4)))
    assert run(loaded(1, 1)) == (load_weights(2, 1), resume(1, 1))
    run(interrupted(2, (2, 4)))
    assert run(loaded(2, 1)) == (resume(2, 2),)


def test_as_many_load_at_a_time_as_may() -> None:
    run = rolling(3, 2)
    run(finished(0), rewarded(0))
    assert run(trained(1)) == (load_weights(0, 1), load_weights(1, 1))
    assert run(loaded(1, 1)) == (load_weights(2, 1),)


@pytest.mark.parametrize("mode", ["interrupt", "in_place", "drain"])
@pytest.mark.parametrize("routing", ["least_loaded", "round_robin", "least_kv"])
def test_new_rollouts_go_to_servers_that_load_nothing(mode: UpdateMode, routing: str) -> None:
    run = rolling(3, mode=mode, routing=routing)
    run(finished(0), rewarded(0), trained(1))
    # Server 0 is empty, and would be the next in turn, too.
    assert run(prompt(7, 1)) == (start(7, 3, server_id=1),)
    assert run(prompt(8, 1)) == (start(8, 4, server_id=2),)


@pytest.mark.parametrize("routing", ["least_loaded", "round_robin", "least_kv"])
def test_where_all_servers_load_rollouts_wait_on_them(routing: str) -> None:
    run = rolling(1, routing=routing, mode="drain")
    run(finished(0), rewarded(0))
    assert run(trained(1)) == (load_weights(0, 1, "drain"),)
    assert run(prompt(7, 1)) == (start(7, 1, server_id=0),)


def test_a_newer_version_goes_first_to_those_with_the_oldest() -> None:
    run = rolling(3, groups=4)
    run(finished(0), rewarded(0), trained(1), interrupted(0, (3, 1)))
    assert run(loaded(0, 1)) == (load_weights(1, 1), resume(0, 3))
    run(finished(1), rewarded(1))
    assert run(ready(1)) == (train(2, 1),)
    assert run(trained(2)) == (), "server 1 is loading still"
    assert run(loaded(1, 1)) == (load_weights(2, 2),), "which has version 0, and never had 1"
    assert run(interrupted(2, (2, 1))) == ()
    assert run(loaded(2, 2)) == (load_weights(0, 2), resume(2, 2))
    run(interrupted(0, (3, 5), version=1))
    assert run(loaded(0, 2)) == (load_weights(1, 2), resume(0, 3))
    assert run(loaded(1, 2)) == ()


def test_the_loss_of_the_loading_server_lets_the_next_begin() -> None:
    run = rolling(3, groups=4)
    run(finished(0), rewarded(0), trained(1), interrupted(0, (3, 1)))
    # What ran there goes on at once, on a server that does not load.
    assert run(lost(0)) == (load_weights(1, 1), resume(2, 3))


def test_the_loss_of_a_server_that_waits_for_its_turn_changes_nothing_else() -> None:
    run = rolling(3)
    run(finished(0), rewarded(0), trained(1), interrupted(0))
    assert run(lost(1)) == (resume(2, 1),)
    assert run(loaded(0, 1)) == (load_weights(2, 1),)


def test_a_server_that_joins_in_the_middle_waits_for_its_turn_and_generates() -> None:
    run = rolling(2)
    run(finished(0), rewarded(0), trained(1), interrupted(0))
    assert run(joined(2, 0)) == ()
    assert run(prompt(7, 1)) == (start(7, 2, server_id=2),)
    assert run(loaded(0, 1)) == (load_weights(1, 1),)
    run(interrupted(1, (1, 1)))
    assert run(loaded(1, 1)) == (load_weights(2, 1), resume(1, 1))


def test_a_server_lost_with_its_rollouts_and_back_first_loads_if_none_other_does() -> None:
    run = rolling(1, groups=3)
    run(finished(0), rewarded(0), trained(1), interrupted(0, (1, 3), (2, 3)))
    assert run(lost(0)) == ()
    assert run(joined(0, 0)) == (load_weights(0, 1),)
    assert run(loaded(0, 1)) == (resume(0, 1, 2),)


@pytest.mark.parametrize("scheduler", ["areal", "in_flight"])
def test_it_contradicts_a_barrier(scheduler: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^scheduler.servers_at_once = 1: with scheduler.barrier = true "
    ):
        load(scheduler, LIMITS, {"servers_at_once": 1, "barrier": True})
    load(scheduler, LIMITS, {"servers_at_once": 1, "barrier": False})


@pytest.mark.parametrize("wrong", [0, -1, 1.0, True, "2"])
@pytest.mark.parametrize("scheduler", ["areal", "in_flight", "bounded_lag"])
def test_it_is_a_whole_number(scheduler: str, wrong: object) -> None:
    with pytest.raises(
        ConfigError, match=r"^scheduler.servers_at_once = .*: expected a whole number >= 1$"
    ):
        load(scheduler, LIMITS, {"servers_at_once": wrong})


LIMITS = Limits(train_batch_rollouts=4, group_size=2, eta=1, max_lag=1, max_rollouts_in_flight=8)
