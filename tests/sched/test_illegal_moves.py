"""Every illegal event and command is refused, and the recount refuses every wrong count."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from areal_sched import (
    InterruptRollouts,
    InvalidCommand,
    Limits,
    UnexpectedEvent,
)
from areal_sched.ids import RolloutId, ServerId
from benchmarks.recount import recount
from tests.sched.bench import (
    Bench,
    abort,
    busy,
    drop,
    failed,
    finished,
    ids,
    interrupted,
    joined,
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

# ---- illegal events --------------------------------------------------------------------------

ILLEGAL_EVENTS = {
    "a server that is there": (joined(0), "joined twice"),
    "weights from the future": (joined(9, version=1), "the newest weights are 0"),
    "weights before the first": (joined(9, version=-1), "the newest weights are 0"),
    "loss of an unknown server": (lost(9), "there is no server 9"),
    "a group that is there": (prompt(0), "arrived twice"),
    "a group of none": (prompt(60, size=0), "empty group or prompt"),
    "a prompt of none": (prompt(60, prompt_tokens=0), "empty group or prompt"),
    "load on an unknown server": (loaded(9, 1), "there is no server 9"),
    "load nobody asked for": (loaded(0, 0), "was loading None"),
    "finish of the unknown": (finished(99), "not running"),
    "finish of the finished": (finished(1), "not running"),
    "finish of the ready": (finished(2), "not running"),
    "interruption of the unknown": (interrupted(0, (99, 1)), "does not run there"),
    "interruption elsewhere": (interrupted(1, (0, 1)), "does not run there"),
    "interruption of the finished": (interrupted(1, (1, 5)), "does not run there"),
    "interruption twice": (interrupted(0, (0, 6), (0, 6)), "does not run there"),
    "interruption by the unknown": (interrupted(9), "there is no server 9"),
    "tokens that vanish": (interrupted(0, (0, 2)), "had 3 tokens and now has 2"),
    "failure of the unknown": (failed(99), "no such rollout"),
    "failure of the ready": (failed(2), "READY"),
    "reward of the unknown": (rewarded(99), "awaits no reward"),
    "reward of the running": (rewarded(0), "awaits no reward"),
    "reward of the ready": (rewarded(2), "awaits no reward"),
    "reward that is no number": (rewarded(1, float("nan")), "no finite number"),
    "reward without end": (rewarded(1, float("-inf")), "no finite number"),
    "trainer ready twice": (ready(0), "was ready or in a step"),
    "a step nobody asked for": (trained(1), "makes None"),
    "failure of a step nobody asked for": (train_failed(1), "makes None"),
}


@pytest.mark.parametrize("name", ILLEGAL_EVENTS)
def test_an_event_that_cannot_have_happened_is_the_executors_bug(name: str) -> None:
    event, message = ILLEGAL_EVENTS[name]
    bench = busy()
    with pytest.raises(UnexpectedEvent, match=message):
        bench(event)


def test_events_of_the_trainer_have_to_fit_its_step() -> None:
    for event, message in (
        (ready(0), "ready or in a step"),
        (trained(2), "makes 1"),
        (train_failed(0), "makes 1"),
    ):
        bench = busy().do(train(1, 2))
        with pytest.raises(UnexpectedEvent, match=message):
            bench(event)
    bench = busy().do(train(1, 2))(trained(1))
    with pytest.raises(UnexpectedEvent, match="newest weights are 1"):
        bench(ready(0))


def test_weights_loaded_have_to_be_those_asked_for() -> None:
    bench = busy().do(train(1, 2))(trained(1), load(0, 1))
    with pytest.raises(UnexpectedEvent, match="was loading 1"):
        bench(loaded(0, 0))


# ---- illegal commands ------------------------------------------------------------------------

ILLEGAL_COMMANDS = {
    "start in no group": (start(99, 4), "no such group or server"),
    "start on no server": (start(2, 4, server_id=9), "no such group or server"),
    "start of none": (start(2), "has 2 rollouts to start"),
    "start of too many": (start(2, 4, 5, 6), "has 2 rollouts to start"),
    "start in a full group": (start(0, 4), "has 0 rollouts to start"),
    "an old id": (start(2, 3), "next rollout id is 4"),
    "an id left out": (start(2, 5), "next rollout id is 4"),
    "the same id twice": (start(2, 4, 4), "next rollout id is 5"),
    "resume on no server": (resume(9, 3), "no server 9"),
    "resume of the running": (resume(0, 0), "not interrupted"),
    "resume twice": (resume(0, 3, 3), "not interrupted"),
    "resume of the unknown": (resume(0, 99), "not interrupted"),
    "interrupt on no server": (
        InterruptRollouts(rollout_ids=ids(0), server_id=ServerId(9)),
        "no server 9",
    ),
    "interrupt elsewhere": (
        InterruptRollouts(rollout_ids=ids(0), server_id=ServerId(1)),
        "not on that server",
    ),
    "abort of the finished": (abort(1), "not running"),
    "abort of the interrupted": (abort(3), "not running"),
    "abort of the unknown": (abort(99), "not running"),
    "abort twice": (abort(0, 0), "not running"),
    "drop of the running": (drop(0), "not held"),
    "drop of the unknown": (drop(99), "not held"),
    "drop twice": (drop(1, 1), "not held"),
    "load on no server": (load(9, 1), "no server 9"),
    "load of what it has": (load(0, 0), "holds 0"),
    "load of the unpublished": (load(0, 1), "published is 0"),
    "training of the finished": (train(1, 1), "not ready"),
    "training of the running": (train(1, 0), "not ready"),
    "training of the same twice": (train(1, 2, 2), "not ready"),
    "training of nothing": (train(1), "without rollouts"),
    "training of another version": (train(2, 2), "next is 1"),
}


@pytest.mark.parametrize("name", ILLEGAL_COMMANDS)
def test_a_command_that_breaks_a_law_is_the_schedulers_bug(name: str) -> None:
    command, message = ILLEGAL_COMMANDS[name]
    bench = busy()
    with pytest.raises(InvalidCommand, match=message):
        bench.do(command)  # type: ignore[arg-type]


def test_a_second_step_or_load_has_to_wait() -> None:
    bench = busy().accepted(0).do(train(1, 2))
    with pytest.raises(InvalidCommand, match="trainer is not ready"):
        bench.do(train(1, 0))
    bench = busy().accepted(0).do(train(1, 2))(trained(1), load(0, 1))
    with pytest.raises(InvalidCommand, match="is loading 1"):
        bench.do(load(0, 1))


def test_nothing_beyond_max_lag_is_trained() -> None:
    limits = Limits(train_batch_rollouts=2, group_size=2, eta=4, max_lag=0)
    bench = Bench(limits).started().accepted(0, 1, 2, 3)
    bench.do(train(1, 0, 1))(trained(1))
    with pytest.raises(InvalidCommand, match="more than max_lag = 0 before 1"):
        bench(ready(1), train(2, 2, 3))


# ---- the checker itself ----------------------------------------------------------------------


def tamper_phase(bench: Bench) -> None:
    bench.rollout(0).phase = bench.rollout(3).phase


TAMPERINGS: dict[str, Callable[[Bench], object]] = {
    "running": lambda b: setattr(b.state, "running", 2),
    "awaiting": lambda b: setattr(b.state, "awaiting_reward", 0),
    "open groups": lambda b: setattr(b.state, "open_groups", 1),
    "trained": lambda b: setattr(b.state, "trained", 1),
    "phase": tamper_phase,
    "kv": lambda b: setattr(b.state.servers[ServerId(0)], "known_kv_tokens", 14),
    "unstarted": lambda b: setattr(b.state.groups[0], "unstarted", 1),
    "outstanding": lambda b: setattr(b.state.groups[0], "outstanding", 1),
    "ready count": lambda b: setattr(b.state.groups[1], "ready", 2),
    "complete": lambda b: b.state.complete_groups.update({1: b.state.groups[1]}),
    "abandoned": lambda b: setattr(b.state.groups[1], "abandoned", True),
    "pending": lambda b: b.state.pending.popitem(),
    "ready": lambda b: b.state.ready.clear(),
    "interrupted": lambda b: b.state.interrupted.clear(),
    "lost": lambda b: b.state.rollouts.pop(RolloutId(0)),
    "load index": lambda b: b.state.by_load.update(ServerId(1), 7),
    "kv index": lambda b: b.state.by_kv.update(ServerId(1), 70),
    "time": lambda b: setattr(b.rollout(1), "ready_ns", 3),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_the_recount_notices_every_wrong_count(name: str) -> None:
    bench = busy()
    recount(bench.state)
    TAMPERINGS[name](bench)
    with pytest.raises(AssertionError):
        recount(bench.state)
