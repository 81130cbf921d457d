"""Replay: the same commands again, or the exact entry where they part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from areal_sched import (
    ClusterView,
    Command,
    Controller,
    Entry,
    Event,
    Limits,
    ReplayDiverged,
    ServerLost,
    StartRollouts,
    load,
    replay,
)
from areal_sched.journal import Unreadable
from tests.sched.bench import (
    finished,
    joined,
    lost,
    prompt,
    ready,
    rewarded,
    start,
    trained,
)

LIMITS = Limits(train_batch_rollouts=2, eta=1, max_rollouts_in_flight=3)

EVENTS: tuple[Event, ...] = (
    ready(0),
    joined(0),
    prompt(0, size=1),
    joined(1),
    prompt(1, size=1),
    prompt(2, size=1),
    finished(1, tokens=9),
    prompt(3, size=1),
    rewarded(1),
    finished(0, tokens=9),
    rewarded(0),
    trained(1),
)


def play(scheduler: Any, events: tuple[Any, ...], limits: Limits = LIMITS) -> list[Entry]:
    """Handle events, one a nanosecond; the entries a journal of it would hold."""
    entries: list[Entry] = []

    def record(now_ns: int, event: Any, commands: Any, error: str | None) -> None:
        entries.append(Entry(len(entries) + 2, now_ns, event, commands, error))

    controller = Controller(scheduler, limits, record)
    for now_ns, event in enumerate(events):
        try:
            controller.handle(event, now_ns=now_ns)
        except BaseException:
            break
    return entries


def areal(**options: Any) -> Any:
    return load("areal", LIMITS, {"unit": "rollout", **options})


def test_the_same_scheduler_gives_the_same_commands() -> None:
    entries = play(areal(), EVENTS)
    assert len(entries) == len(EVENTS)
    assert replay(entries, areal(), LIMITS) == len(EVENTS)
    assert replay(entries[:5], areal(), LIMITS) == 5
    assert replay([], areal(), LIMITS) == 0


def test_another_option_diverges_at_the_first_decision_it_changes() -> None:
    """By hand: in turn, and by load, rollouts 0, 1, 2, 3 go to servers 0, 1, 0, 1.

    If 1 ends before 2 starts, then 2 goes to server 1, which is empty, but in turn to server 0.
    """
    entries = play(areal(), EVENTS)
    sent = [c.server_id for e in entries for c in e.commands if isinstance(c, StartRollouts)]
    assert sent == [0, 1, 0, 1]
    assert replay(entries, areal(routing="round_robin"), LIMITS) == len(entries)
    events = (*EVENTS[:5], finished(1, tokens=9), EVENTS[5])
    entries = play(areal(), events)
    with pytest.raises(ReplayDiverged) as caught:
        replay(entries, areal(routing="round_robin"), LIMITS)
    assert caught.value.entry == caught.value.now_ns == 6
    assert caught.value.event == EVENTS[5]
    assert caught.value.recorded == (start(2, 2, server_id=1),)
    assert caught.value.replayed == (start(2, 2, server_id=0),)
    assert str(caught.value) == (
        "replay diverged at entry 6 (line 8, t = 6 ns) on "
        "PromptArrived(prompt_id=2, group_id=2, group_size=1, prompt_tokens=10)\n"
        "  journal:  StartRollouts(group_id=2, rollout_ids=(2,), server_id=1)\n"
        "  replayed: StartRollouts(group_id=2, rollout_ids=(2,), server_id=0)"
    )


def test_other_limits_diverge_where_they_first_matter() -> None:
    entries = play(areal(), EVENTS)
    narrower = replace(LIMITS, max_rollouts_in_flight=2)
    with pytest.raises(ReplayDiverged) as caught:
        replay(entries, load("areal", narrower, {"unit": "rollout"}), narrower)
    assert caught.value.entry == 5, "the third prompt"
    assert (caught.value.recorded, caught.value.replayed) == ((start(2, 2, server_id=0),), ())


@given(data=st.data())
def test_a_changed_entry_is_the_one_that_is_named(data: st.DataObject) -> None:
    entries = play(areal(), EVENTS)
    which = data.draw(st.integers(0, len(entries) - 1))
    changed = list(entries)
    commands = (*entries[which].commands, start(9, 9))
    changed[which] = replace(entries[which], commands=commands)
    with pytest.raises(ReplayDiverged) as caught:
        replay(changed, areal(), LIMITS)
    assert caught.value.entry == which
    assert caught.value.recorded == commands


class Raises:
    """Fails when a server is lost."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def decide(self, event: Event, view: ClusterView) -> Iterator[Command]:
        if isinstance(event, ServerLost):
            raise self._error
        yield from ()


def test_an_error_on_record_has_to_come_again() -> None:
    events = (joined(0), lost(0), joined(0))
    entries = play(Raises(ZeroDivisionError("a bug")), events)
    assert entries[-1].error == "ZeroDivisionError: a bug"
    assert replay(entries, Raises(ZeroDivisionError("a bug")), LIMITS) == 2
    for other in (ZeroDivisionError("another bug"), ValueError("a bug")):
        with pytest.raises(ReplayDiverged, match=r"entry 1 .*\n.*journal: .*a bug") as caught:
            replay(entries, Raises(other), LIMITS)
        assert caught.value.__cause__ is other, "its traceback is kept"


def test_an_error_that_does_not_come_again_diverges_and_so_does_a_new_one() -> None:
    events = (joined(0), lost(0), joined(0))
    broken = play(Raises(ZeroDivisionError("a bug")), events)
    with pytest.raises(ReplayDiverged) as caught:
        replay(broken, areal(), LIMITS)
    assert (caught.value.entry, caught.value.recorded) == (1, "ZeroDivisionError: a bug")
    with pytest.raises(ReplayDiverged) as caught:
        replay(play(areal(), events), Raises(ZeroDivisionError("a bug")), LIMITS)
    assert (caught.value.entry, caught.value.replayed) == (1, "ZeroDivisionError: a bug")


def test_the_executors_bug_comes_again() -> None:
    entries = play(areal(), (joined(0), lost(3)))
    assert entries[-1].error == "UnexpectedEvent: there is no server 3"
    assert replay(entries, areal(), LIMITS) == 2


def test_replay_ends_where_the_user_stopped_the_run() -> None:
    entries = play(Raises(KeyboardInterrupt()), (joined(0), lost(0)))
    assert entries[-1].error == "KeyboardInterrupt: "
    assert replay(entries, areal(), LIMITS) == 1


def test_replay_ends_before_what_is_no_event() -> None:
    entries = play(areal(), (joined(0), "nonsense"))
    read = replace(entries[-1], event=Unreadable("'nonsense'"))  # type: ignore[arg-type]
    assert replay([entries[0], read], areal(), LIMITS) == 1
