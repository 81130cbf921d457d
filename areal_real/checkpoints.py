"""Checkpoints of a run: the trainer's state, and how far the journal was.

``checkpoints/step-000012/`` holds what the trainer wrote and, last of all, ``run.json``. A folder
without that file is no checkpoint: something broke off while it was written.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from areal_real.errors import BackendError

_FACTS = "run.json"
TRAINER = "trainer"


class Saver(Protocol):
    """Whoever writes the trainer's part."""

    async def save(self, folder: Path) -> None:
        """Write into `folder`, which is there whole or not at all."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint.

    Attributes:
        path: its folder.
        version: training steps done.
        entries: entries of the journal that belong to it.
    """

    path: Path
    version: int
    entries: int

    @property
    def trainer(self) -> Path:
        """What the trainer wrote."""
        return self.path / TRAINER


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: where they lie.
        keep: so many of the newest are kept.
    """

    def __init__(self, folder: Path, *, keep: int) -> None:
        self._folder = folder
        self._keep = keep

    def all(self) -> list[Checkpoint]:
        """Whole checkpoints, oldest first."""
        return sorted(self._read(), key=lambda found: (found.version, found.entries))

    def newest(self) -> Checkpoint | None:
        """The one to go on from."""
        found = self.all()
        return found[-1] if found else None

    async def save(self, saver: Saver, version: int, entries: int) -> Checkpoint:
        """Make a checkpoint and delete the oldest beyond those to be kept.

        Raises:
            BackendError: it could not be written; those before are as they were.
        """
        path = self._folder / f"step-{version:06d}"
        if path.exists():
            # The same step, saved again later on: it does not replace what is there.
            path = path.with_name(f"{path.name}+{entries}")
        if path.exists():
            return Checkpoint(path, version, entries)
        part = path.with_name(path.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir(parents=True)
            await saver.save(part / TRAINER)
            text = json.dumps({"version": version, "journal_entries": entries})
            with (part / _FACTS).open("w") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            _settle(self._folder)
        except OSError as exc:
            shutil.rmtree(part, ignore_errors=True)
            raise BackendError(f"{path}: {exc.strerror or exc}") from exc
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        for old in self.all()[: -self._keep]:
            # Under another name first: half deleted, it must not pass for whole.
            gone = old.path.with_name(old.path.name + ".gone")
            old.path.replace(gone)
            shutil.rmtree(gone, ignore_errors=True)
        return Checkpoint(path, version, entries)

    def _read(self) -> Iterator[Checkpoint]:
        for path in self._folder.glob("step-*"):
            if path.suffix in (".part", ".gone"):
                continue
            try:
                facts = json.loads((path / _FACTS).read_text())
                yield Checkpoint(path, int(facts["version"]), int(facts["journal_entries"]))
            except (OSError, ValueError, KeyError, TypeError):
                continue


def _settle(folder: Path) -> None:
    """See to it that the names in a folder outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
