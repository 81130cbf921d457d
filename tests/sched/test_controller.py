"""The controller: order, re-entrancy, and the culprit on record when the contract is broken."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from areal_sched import (
    ClusterView,
    Command,
    Controller,
    Entry,
    Event,
    InvalidCommand,
    JournalReader,
    JournalWriter,
    NotReentrant,
    ProtocolError,
    ServerLost,
    UnexpectedEvent,
)
from tests.sched.bench import LIMITS, Script, failed, joined, lost, prompt, ready, rewarded, start

ROOT = Path(__file__).resolve().parents[2]


class Deciding:
    """A scheduler made of a function."""

    def __init__(self, decide: Callable[[Event, ClusterView], Any]) -> None:
        self._decide = decide

    def decide(self, event: Event, view: ClusterView) -> Iterable[Command]:
        answer: Iterable[Command] = self._decide(event, view)
        return answer


def starts(event: Event, view: ClusterView) -> Iterator[Command]:
    """Answers the prompt with two starts, checking the view between them."""
    if event == prompt(0):
        assert view.running == 0
        yield start(0, 0)
        assert (view.running, view.next_rollout_id, view.pending[0].unstarted) == (1, 1, 1)
        yield start(0, 1)
        assert (view.running, view.next_rollout_id, len(view.pending)) == (2, 2, 0)


def recorded(scheduler: Any, events: list[Any], path: Path, **options: Any) -> list[Entry]:
    """Handle events until one raises; what the journal then holds, without it being closed."""
    writer = JournalWriter(path.open("wb"), {}, **options)
    controller = Controller(scheduler, LIMITS, writer.record)
    for now_ns, event in enumerate(events):
        try:
            controller.handle(event, now_ns=now_ns)
        except BaseException:
            break
    else:
        writer.flush(sync=True)
    entries = list(JournalReader(path).entries())
    writer.close()
    return entries


def test_the_event_is_folded_first_and_each_command_shows_at_once(tmp_path: Path) -> None:
    events = [joined(0), prompt(0)]
    entries = recorded(Deciding(starts), events, tmp_path / "journal.gz")
    assert [(entry.now_ns, entry.event) for entry in entries] == [(0, events[0]), (1, events[1])]
    assert [entry.commands for entry in entries] == [(), (start(0, 0), start(0, 1))]


def test_commands_are_returned_in_order_and_recorded_before() -> None:
    log: list[object] = []
    controller = Controller(
        Deciding(starts), LIMITS, lambda now_ns, event, commands, error: log.append(commands)
    )
    controller.handle(joined(0), now_ns=5)
    commands = controller.handle(prompt(0), now_ns=5)
    assert commands == (start(0, 0), start(0, 1))
    assert log == [(), commands]
    assert controller.state.now_ns == 5


def test_a_scheduler_may_return_a_list() -> None:
    controller = Controller(Deciding(lambda event, view: []), LIMITS, None)
    assert controller.handle(joined(0), now_ns=0) == ()


def test_time_does_not_run_backwards() -> None:
    controller = Controller(Script(), LIMITS, None)
    with pytest.raises(UnexpectedEvent, match="it is 0 ns already"):
        controller.handle(joined(0), now_ns=-1)
    controller = Controller(Script(), LIMITS, None)
    controller.handle(joined(0), now_ns=7)
    with pytest.raises(UnexpectedEvent, match=r"ServerJoined.* at 6 ns: it is 7 ns already"):
        controller.handle(joined(1), now_ns=6)
    assert list(controller.state.servers) == [0], "nothing was folded"


# ---- re-entrancy -----------------------------------------------------------------------------


def test_a_scheduler_cannot_handle_an_event_inside_another() -> None:
    controllers: list[Controller] = []
    log: list[Any] = []

    def again(event: Event, view: ClusterView) -> Iterator[Command]:
        controllers[0].handle(joined(1), now_ns=1)
        yield start(0, 0)

    controllers.append(Controller(Deciding(again), LIMITS, lambda *entry: log.append(entry)))
    with pytest.raises(NotReentrant, match="ServerJoined"):
        controllers[0].handle(joined(0), now_ns=1)
    ((now_ns, event, commands, error),) = log
    assert (now_ns, event, commands) == (1, joined(0), ())
    assert error.startswith("NotReentrant: ")
    assert list(controllers[0].state.servers) == [0]


def test_whoever_is_told_of_settled_rollouts_cannot_either() -> None:
    def settled(rollouts: object) -> None:
        controller.handle(joined(1), now_ns=9)

    script = Script()
    controller = Controller(script, LIMITS, None, settled)
    controller.handle(joined(0), now_ns=0)
    script.next = [start(0, 0)]
    controller.handle(prompt(0), now_ns=0)
    with pytest.raises(NotReentrant):
        controller.handle(failed(0), now_ns=0)


# ---- the culprit is the last line ------------------------------------------------------------


def raises(event: Event, view: ClusterView) -> Iterator[Command]:
    if isinstance(event, ServerLost):
        yield start(0, 0)
        raise ZeroDivisionError("a bug")


def yields_nonsense(event: Event, view: ClusterView) -> Iterator[Any]:
    if isinstance(event, ServerLost):
        yield start(0, 0)
        yield "start everything"


def yields_an_event(event: Event, view: ClusterView) -> Iterator[Any]:
    if isinstance(event, ServerLost):
        yield lost(1)


IMPROPER = start(0, None)  # type: ignore[arg-type]


def yields_improper_fields(event: Event, view: ClusterView) -> Iterator[Any]:
    if isinstance(event, ServerLost):
        yield IMPROPER


def returns_none(event: Event, view: ClusterView) -> Any:
    return None if isinstance(event, ServerLost) else ()


def is_stopped(event: Event, view: ClusterView) -> Iterator[Command]:
    if isinstance(event, ServerLost):
        raise KeyboardInterrupt
    yield from ()


@pytest.mark.parametrize(
    ("decide", "commands", "error"),
    [
        (raises, (start(0, 0),), "ZeroDivisionError: a bug"),
        (yields_nonsense, (start(0, 0), "'start everything'"), "InvalidCommand: 'start everyth"),
        (yields_an_event, (lost(1),), "InvalidCommand: ServerLost(server_id=1) is no command"),
        (yields_improper_fields, (repr(IMPROPER),), f"InvalidCommand: {IMPROPER}: the"),
        (returns_none, (), "TypeError: 'NoneType' object is not iterable"),
        (is_stopped, (), "KeyboardInterrupt: "),
    ],
)
def test_a_scheduler_that_fails_is_on_record(
    tmp_path: Path, decide: Any, commands: Any, error: str
) -> None:
    events = [joined(0), joined(1), prompt(0), lost(1), lost(0)]
    entries = recorded(Deciding(decide), events, tmp_path / "journal.gz")
    assert len(entries) == 4
    last = entries[-1]
    assert (last.now_ns, last.event) == (3, lost(1))
    assert last.error is not None
    assert last.error.startswith(error)
    assert last.commands == commands


@pytest.mark.parametrize(
    ("nonsense", "error"),
    [
        (lost(9), "UnexpectedEvent: there is no server 9"),
        ("nonsense", "UnexpectedEvent: 'nonsense' is no event"),
        (None, "UnexpectedEvent: None is no event"),
        (start(0, 0), "UnexpectedEvent: StartRollouts(group_id=0, rollout_ids=(0,), server_id=0) "),
        (ServerLost, "UnexpectedEvent: <class"),
        (prompt(7, size=None), "TypeError: "),  # type: ignore[arg-type]
    ],
)
def test_an_executor_that_sends_nonsense_is_on_record(
    tmp_path: Path, nonsense: Any, error: str
) -> None:
    events = [joined(0), nonsense, ready(0)]
    entries = recorded(Deciding(starts), events, tmp_path / "journal.gz")
    assert len(entries) == 2
    assert entries[-1].error is not None
    assert entries[-1].error.startswith(error)
    event: Any = entries[-1].event
    assert event in (nonsense, repr(nonsense))


def test_the_culprit_is_on_disk_even_if_the_process_dies_at_once(tmp_path: Path) -> None:
    program = f"""
        import os
        from areal_sched import Controller, JournalWriter, Limits
        from areal_sched import ServerLost

        class Idle:
            def decide(self, event, view):
                return ()

        writer = JournalWriter(open({str(tmp_path / "journal.gz")!r}, "wb"), {{}})
        controller = Controller(Idle(), Limits(train_batch_rollouts=1), writer.record)
        try:
            controller.handle(ServerLost(server_id=3), now_ns=4)
        finally:
            os._exit(7)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 7, done.stderr
    reader = JournalReader(tmp_path / "journal.gz")
    (entry,) = reader.entries()
    assert reader.truncated
    assert (entry.event, entry.error) == (
        ServerLost(server_id=3),  # type: ignore[arg-type]
        "UnexpectedEvent: there is no server 3",
    )


def test_errors_tell_whose_bug_it_is() -> None:
    assert issubclass(InvalidCommand, ProtocolError)
    assert issubclass(UnexpectedEvent, ProtocolError)
    controller = Controller(Script(), LIMITS, None)
    with pytest.raises(UnexpectedEvent, match=r"RewardComputed.*awaits no reward"):
        controller.handle(rewarded(0), now_ns=0)
