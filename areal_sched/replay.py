"""Replay: feed a journal's events to a scheduler again and compare its commands."""

from __future__ import annotations

from collections.abc import Iterable

from areal_sched.controller import Controller, Scheduler
from areal_sched.errors import ReplayDiverged
from areal_sched.journal import Entry, Unreadable
from areal_sched.limits import Limits

_STOPPED = ("KeyboardInterrupt", "SystemExit")


def replay(entries: Iterable[Entry], scheduler: Scheduler, limits: Limits) -> int:
    """Replay entries through a fresh scheduler.

    An entry that recorded an error must raise the same error again. Replay ends before an entry
    that cannot be: its event was no event, or the user stopped the run in the middle of it.

    Args:
        entries: handled events in order, as `JournalReader.entries` gives them.
        scheduler: built like the recorded one.
        limits: the recorded run's.

    Returns:
        How many entries were replayed, all with identical commands.

    Raises:
        ReplayDiverged: names the first entry that differs.
    """
    controller = Controller(scheduler, limits, record=None)
    count = 0
    for entry in entries:
        error: str | None = None
        commands: object = ()
        cause: Exception | None = None
        if isinstance(entry.event, Unreadable) or (entry.error or "").startswith(_STOPPED):
            break
        try:
            commands = controller.handle(entry.event, now_ns=entry.now_ns)
        except Exception as exc:
            error, cause = f"{type(exc).__name__}: {exc}", exc
        if error != entry.error or (error is None and commands != entry.commands):
            raise ReplayDiverged(
                entry=count,
                line=entry.line,
                now_ns=entry.now_ns,
                event=entry.event,
                recorded=entry.error or entry.commands,
                replayed=error or commands,
            ) from cause
        count += 1
    return count
