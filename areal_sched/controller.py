"""The controller: one event in, its commands out, both on record before anything is executed.

Laws:

1. One event at a time, run to completion. Never re-entrant.
2. The event is folded into the state, then the scheduler decides; after each command it yields,
   the view already shows that command.
3. Event and commands are recorded before `Controller.handle` returns, even when it raises: the
   last record is the culprit.
4. Time never runs backwards. It is passed in; nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

from areal_sched.commands import Command
from areal_sched.errors import InvalidCommand, NotReentrant, UnexpectedEvent
from areal_sched.events import Event
from areal_sched.fold_commands import COMMAND_FOLDS
from areal_sched.fold_events import EVENT_FOLDS
from areal_sched.limits import Limits
from areal_sched.state import ClusterState, SettledHook
from areal_sched.view import ClusterView

Record: TypeAlias = Callable[[int, Event, tuple[Command, ...], str | None], None]
"""Takes (now_ns, event, commands, error): `JournalWriter.record` is one."""


class Scheduler(Protocol):
    """Decides. Built as ``Class(limits, **options)``; see `areal_sched.load`."""

    def decide(self, event: Event, view: ClusterView) -> Iterable[Command]:
        """Yield the commands that answer `event`.

        Usually a generator, which sees each command's effect in the view when it goes on. No
        clock, no I/O, no thread, no randomness: the same events must give the same commands.
        """


class Executor(Protocol):
    """Acts. The simulator and the real back end each have one."""

    def execute(self, command: Command) -> None:
        """Begin to carry out a command and return at once; the outcome comes back as events."""


class Controller:
    """Joins a scheduler to the state and the record.

    Args:
        scheduler: decides.
        limits: bounds the state enforces.
        record: called once per handled event; None records nothing.
        on_settled: see `areal_sched.state.ClusterState`.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        limits: Limits,
        record: Record | None,
        on_settled: SettledHook | None = None,
    ) -> None:
        self.state = ClusterState(limits, on_settled)
        self._decide = scheduler.decide
        self._record = record
        self._handling = False
        self._ended: str | None = None  # the error that ended the run

    def handle(self, event: Event, *, now_ns: int) -> tuple[Command, ...]:
        """Fold one event, let the scheduler decide, record both.

        Args:
            event: what happened.
            now_ns: when, in nanoseconds since the run began.

        Returns:
            The commands, in the order in which they are to be executed.

        Raises:
            UnexpectedEvent: the executor's bug. The run cannot go on.
            InvalidCommand: the scheduler's bug. The run cannot go on.
            NotReentrant: called from inside itself, or after it raised.
        """
        if self._handling:
            where = f"after {self._ended}" if self._ended else "inside another event"
            raise NotReentrant(f"{event} was handled {where}")
        self._handling = True
        state = self.state
        commands: list[Command] = []
        try:
            if now_ns < state.now_ns:
                raise UnexpectedEvent(f"{event} at {now_ns} ns: it is {state.now_ns} ns already")
            state.now_ns = now_ns
            try:
                fold = EVENT_FOLDS[type(event)]
            except KeyError:
                raise UnexpectedEvent(f"{event!r} is no event") from None
            fold(state, event)
            for command in self._decide(event, state):
                commands.append(command)
                try:
                    reserve = COMMAND_FOLDS[type(command)]
                except KeyError:
                    raise InvalidCommand(f"{command!r} is no command") from None
                reserve(state, command)
        except BaseException as exc:
            # The state is half changed: `_handling` stays set, and nothing is handled any more.
            self._ended = error = f"{type(exc).__name__}: {exc}"
            if self._record is not None:
                self._record(now_ns, event, tuple(commands), error)
            raise
        result = tuple(commands) if commands else ()
        if self._record is not None:
            self._record(now_ns, event, result, None)
        self._handling = False
        return result
