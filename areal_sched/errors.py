"""Everything this package raises on purpose.

::

    ArealError
    +-- ConfigError(ValueError)      the user's input: field, value, and the nearest valid name
    +-- ProtocolError                somebody broke the contract; the run stops
    |   +-- InvalidCommand           the scheduler's bug
    |   +-- UnexpectedEvent          the executor's bug
    |   +-- NotReentrant             the executor handled an event inside another one
    +-- JournalError(ValueError)     a journal that cannot be read: file, line
    +-- ReplayDiverged               the scheduler decided otherwise than the journal says

Faults of the world (a lost server, a failed reward) are events, never exceptions.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from areal_sched.spelling import difference, spelled


class ArealError(Exception):
    """Base of all errors of this project."""


class ConfigError(ArealError, ValueError):
    """A value the user gave is wrong. The message names field, value and what would be right."""


class ProtocolError(ArealError):
    """The contract between scheduler and executor was broken."""


class InvalidCommand(ProtocolError):
    """The scheduler asked for something impossible in the present state."""


class UnexpectedEvent(ProtocolError):
    """The executor reported something that cannot have happened."""


class NotReentrant(ProtocolError):
    """`Controller.handle` was called while another event was being handled."""


class JournalError(ArealError, ValueError):
    """A journal could not be read."""


class ReplayDiverged(ArealError):
    """A replayed scheduler gave other commands than the journal holds.

    Attributes:
        entry: index of the first differing entry, counting handled events from 0.
        line: its line in the journal, where known.
        now_ns: its time, in nanoseconds.
        event: the event that was handled.
        recorded: the commands in the journal, or the error.
        replayed: the commands the scheduler gave now, or the error.
    """

    def __init__(
        self,
        *,
        entry: int,
        now_ns: int,
        event: object,
        recorded: object,
        replayed: object,
        line: int | None = None,
    ) -> None:
        self.entry = entry
        self.line = line
        self.now_ns = now_ns
        self.event = event
        self.recorded = recorded
        self.replayed = replayed
        where = f"t = {now_ns} ns" if line is None else f"line {line}, t = {now_ns} ns"
        alike, ours, now = difference(recorded, replayed)
        after = f", after {alike} equal command{'' if alike == 1 else 's'}" if alike else ""
        super().__init__(
            f"replay diverged at entry {entry} ({where}) on {spelled(event)}{after}\n"
            f"  journal:  {ours}\n  replayed: {now}"
        )


def nearest(name: object, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest known name, or the list of all names."""
    names = sorted(known)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f" (known: {', '.join(names)})" if names else ""
