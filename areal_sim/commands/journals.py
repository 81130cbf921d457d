"""What the commands share that read journals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from areal_sim.commands.show import duration

if TYPE_CHECKING:
    from analysis.recorder import RunRecorder


def read_noting(journal: Path) -> tuple[RunRecorder, tuple[str, ...]]:
    """Read a journal, as far as it goes.

    Returns:
        The run, and what has to be told of it: that the journal breaks off, and where; that the
        run was stopped by an error.

    Raises:
        JournalError: it cannot be read, or breaks off before every device has told of any time.
        AnalysisError: the header lacks facts.
    """
    from analysis.recorder import read_run
    from areal_sched.errors import JournalError

    recorder = read_run(journal)
    notes = []
    if recorder.note is not None:
        if not recorder.end_ns:
            raise JournalError(f"{recorder.note}; that is too little to work with")
        # Spans are written when they end, so the last of the journal cannot be accounted for.
        notes.append(f"{recorder.note}; figures cover the first {duration(recorder.end_ns / 1e9)}")
    if recorder.error is not None:
        notes.append(f"{journal}: the run was stopped by {recorder.error}")
    return recorder, tuple(notes)
