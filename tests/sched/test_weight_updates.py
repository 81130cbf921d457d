"""Weight updates, with a barrier and rolling, when servers are lost and loads overlap."""

from __future__ import annotations

from typing import Any

from areal_sched import (
    Limits,
)
from tests.sched.bench import (
    Live,
    drop,
    failed,
    finished,
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
    trained,
)

# ---- updates with a barrier ------------------------------------------------------------------


def test_all_servers_wait_for_the_last_one_and_then_resume_together() -> None:
    run = live("areal", limits_of(1), groups=3)
    run(finished(0), rewarded(0))
    assert run(trained(1)) == (load(0, 1), load(1, 1))
    assert run(interrupted(0, (2, 3)), loaded(0, 1)) == ()
    assert run(prompt(7, 1)) == (), "nothing starts meanwhile"
    run(interrupted(1, (1, 4)))
    assert run(loaded(1, 1)) == (resume(0, 2), resume(1, 1), start(7, 3, server_id=0))


def test_the_loss_of_the_last_loading_server_opens_the_barrier() -> None:
    run = live("areal", limits_of(1), groups=3)
    run(finished(0), rewarded(0), trained(1))
    run(interrupted(0, (2, 3)), loaded(0, 1))
    assert run(lost(1)) == (resume(0, 2), resume(0, 1))


def test_weights_published_during_a_load_are_loaded_next() -> None:
    run = live("areal", limits_of(1, eta=8), groups=4)
    run(finished(0), rewarded(0), trained(1))
    run(interrupted(0, (2, 3)), loaded(0, 1))
    run(finished(1), rewarded(1))
    assert run(ready(1)) == (train(2, 1),)
    assert run(trained(2)) == (load(0, 2),), "server 1 is still loading version 1"
    assert run(loaded(0, 2)) == ()
    run(interrupted(1, (3, 1)))
    assert run(loaded(1, 1)) == (load(1, 2),)
    assert run(loaded(1, 2)) == (resume(0, 2), resume(1, 3))


def test_a_server_that_joins_loads_first() -> None:
    run = live("areal", limits_of(1, eta=8), servers=1, groups=1)
    run(finished(0), rewarded(0), trained(1), interrupted(0), loaded(0, 1))
    assert run(joined(1, 0)) == (load(1, 1),)
    assert run(prompt(7, 1)) == ()
    assert run(loaded(1, 1)) == (start(7, 1, server_id=0),)
    assert run(joined(2, 1)) == (), "it has the newest"


def test_generation_may_wait_until_the_trainer_has_evaluated() -> None:
    run = live("areal", limits_of(1), groups=3, resume_after="evaluation")
    run(finished(0), rewarded(0), trained(1), interrupted(0, (2, 3)), loaded(0, 1))
    assert run(interrupted(1, (1, 4)), loaded(1, 1)) == ()
    assert run(ready(1)) == (resume(0, 2), resume(1, 1))


# ---- rolling updates -------------------------------------------------------------------------


def rolling(limits: Limits, **more: Any) -> Live:
    return live("areal", limits, barrier=False, **more)


def test_each_server_resumes_by_itself() -> None:
    run = rolling(limits_of(1), groups=3)
    run(finished(0), rewarded(0), trained(1))
    run(interrupted(0, (2, 3)), interrupted(1, (1, 4)))
    assert run(loaded(1, 1)) == (resume(1, 1),)
    assert run(loaded(0, 1)) == (resume(0, 2),)


def test_a_second_load_does_not_forget_what_the_first_interrupted() -> None:
    run = rolling(limits_of(1, eta=8), groups=4)
    run(finished(0), rewarded(0), trained(1), interrupted(0, (2, 3)), finished(1), rewarded(1))
    run(ready(1), trained(2))
    assert run(loaded(0, 1)) == (load(0, 2),)
    assert run(interrupted(0)) == ()
    assert run(loaded(0, 2)) == (resume(0, 2),)


def test_rollouts_of_a_lost_server_go_on_elsewhere_at_once() -> None:
    run = rolling(limits_of(1), groups=3)
    run(finished(0), rewarded(0), trained(1), interrupted(0, (2, 3)))
    assert run(lost(0)) == (resume(1, 2),)


def test_rollouts_of_the_only_server_wait_until_it_is_back_and_has_loaded() -> None:
    run = rolling(limits_of(1), servers=1, groups=3)
    run(finished(0), rewarded(0), trained(1), interrupted(0, (1, 3), (2, 3)), loaded(0, 1))
    assert run(lost(0)) == ()
    assert run(joined(0, 0)) == (load(0, 1),)
    assert run(interrupted(0)) == ()
    assert run(loaded(0, 1)) == (resume(0, 1, 2),)


def test_what_was_interrupted_while_generation_was_held_is_resumed_after_the_load() -> None:
    run = rolling(limits_of(1), groups=3, resume_after="evaluation")
    run(finished(0), rewarded(0), trained(1), interrupted(0, (2, 3)), interrupted(1, (1, 4)))
    assert run(loaded(0, 1)) == ()
    assert run(ready(1)) == (resume(0, 2),), "server 1 is loading still"
    assert run(loaded(1, 1)) == (resume(1, 1),)


def test_a_dropped_rollout_is_not_resumed() -> None:
    limits = limits_of(2, 2, max_failures_per_group=0, eta=8)
    run = rolling(limits, servers=1, groups=2, unit="group")
    run(finished(0), rewarded(0), finished(1), rewarded(1), trained(1))
    run(interrupted(0, (2, 1)))
    assert run(failed(3)) == (drop(2),)
    assert run(loaded(0, 1)) == ()
