"""Where things lie in a real run's directory, beside what `analysis.rundir` puts there."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

CONFIG = "config.toml"
JOURNAL = "journal.jsonl.gz"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A real run's directory.

    ``model/`` is what the run began with, ``weights/000012/`` a published version,
    ``checkpoints/`` what it can be resumed from, ``trajectories.sqlite`` what servers generated,
    ``logs/`` what servers and trainer printed, ``metrics.jsonl``, ``tensorboard/`` and
    ``held_out.jsonl`` how it learns.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / CONFIG

    @property
    def journal(self) -> Path:
        """The journal."""
        return self.path / JOURNAL

    @property
    def model(self) -> Path:
        """A Hugging Face folder: the model before any training."""
        return self.path / "model"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints."""
        return self.path / "checkpoints"

    @property
    def batches(self) -> Path:
        """The batch of the step in progress."""
        return self.path / "batches"

    @property
    def logs(self) -> Path:
        """Logs of servers and trainer."""
        return self.path / "logs"

    @property
    def store(self) -> Path:
        """The trajectory store."""
        return self.path / "trajectories.sqlite"

    @property
    def held_out(self) -> Path:
        """Evaluations."""
        return self.path / "held_out.jsonl"

    def weights(self, version: int) -> Path:
        """Published weights."""
        return self.path / "weights" / f"{version:06d}"

    def versions(self) -> list[int]:
        """Published versions that are still there."""
        found = (self.path / "weights").glob("[0-9]*")
        return sorted(int(x.name) for x in found if x.name.isdigit())

    def make(self) -> None:
        """Make the folders."""
        for path in (self.checkpoints, self.batches, self.logs, self.weights(0).parent):
            path.mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        """Remove a run that was here."""
        shutil.rmtree(self.path, ignore_errors=True)

    def set_journal_aside(self) -> Path:
        """Rename the journal of the run that is resumed; returns its new name."""
        number = 1
        while (aside := self.path / f"journal.before-resume-{number}.jsonl.gz").exists():
            number += 1
        self.journal.rename(aside)
        return aside
