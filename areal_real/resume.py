"""Taking a run up again: its journal's first part is replayed, and the rest of it is set aside.

A checkpoint is the trainer's state after step v together with a number of journal entries. The
journal up to there, fed to a fresh controller, gives the scheduler and the state back exactly;
what was decided after it belonged to weights that no longer exist, and is counted and kept in a
file of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from areal_sched import commands as c
from areal_sched.controller import Controller
from areal_sched.errors import JournalError, ReplayDiverged
from areal_sched.events import Event, PromptArrived, TimerFired, TrainStepFinished
from areal_sched.journal import Entry, JournalReader, Measured
from areal_sched.measurements import Measurement, ServerSpan, TrainerSpan


@dataclass(slots=True)
class Past:
    """What a journal's first part says beside the state.

    Attributes:
        now_ns: when it ends, on the run's clock.
        prompts: prompts offered.
        timers: when the timers that are set will fire, by id.
        server_spans_ns: until when each server's spans reach.
        trainer_spans_ns: until when the trainer's do.
        discarded_entries: entries after it.
        discarded_steps: training steps those had finished.
    """

    now_ns: int = 0
    prompts: int = 0
    timers: dict[int, int] = field(default_factory=dict)
    server_spans_ns: dict[int, int] = field(default_factory=dict)
    trainer_spans_ns: int = 0
    discarded_entries: int = 0
    discarded_steps: int = 0


def replay_first(
    path: Path,
    entries: int,
    controller: Controller,
    measure: Callable[[int, Measurement], None],
) -> Past:
    """Replay a journal's first entries; the controller's record writes them down again.

    Args:
        path: the journal, perhaps broken off.
        entries: how many.
        controller: fresh, with the scheduler the journal names.
        measure: takes (now_ns, measurement) of those between the entries.

    Raises:
        JournalError: the journal has fewer entries, or cannot be read.
        ReplayDiverged: the scheduler decides otherwise than it did.
    """
    past = Past()
    if entries == 0 and not path.exists():
        return past  # it ended between its first checkpoint and its first event
    count = 0
    reader = iter(JournalReader(path))
    while True:
        try:
            item = next(reader)
        except StopIteration:
            break
        except JournalError:
            if count < entries:
                raise
            break  # the machine broke off in the middle of what is not needed
        if count == entries:
            if isinstance(item, Entry):
                past.discarded_entries += 1
                past.discarded_steps += isinstance(item.event, TrainStepFinished)
            continue
        if isinstance(item, Measured):
            measure(item.now_ns, item.measurement)
            _span(past, item.measurement)
            continue
        commands = controller.handle(item.event, now_ns=item.now_ns)
        if commands != item.commands:
            raise ReplayDiverged(
                entry=count,
                now_ns=item.now_ns,
                event=item.event,
                recorded=item.commands,
                replayed=commands,
            )
        count += 1
        past.now_ns = item.now_ns
        _note(past, item.event, commands)
    if count < entries:
        raise JournalError(f"{path}: has {count} entries, the checkpoint needs {entries}")
    return past


def _note(past: Past, event: Event, commands: tuple[c.Command, ...]) -> None:
    if isinstance(event, PromptArrived):
        past.prompts += 1
    elif isinstance(event, TimerFired):
        past.timers.pop(event.timer_id, None)
    for command in commands:
        if isinstance(command, c.SetTimer):
            past.timers[command.timer_id] = command.fire_at_ns


def _span(past: Past, span: Measurement) -> None:
    if isinstance(span, ServerSpan):
        past.server_spans_ns[span.server_id] = span.end_ns
    elif isinstance(span, TrainerSpan):
        past.trainer_spans_ns = span.end_ns
