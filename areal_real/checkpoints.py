"""Checkpoints of a run: the trainer's state, and how far the journal was.

``checkpoints/step-000012/`` holds what the trainer wrote and, last of all, ``run.json`` with the
checksums of all that. It is made under another name and renamed when it is whole. One whose files
are no longer what was written is set aside, and the one before it taken.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from areal_real.checksums import checksums, difference, seal_broken, sealed
from areal_real.errors import BackendError

_FACTS = "run.json"
TRAINER = "trainer"
DAMAGED = ".damaged"
"""Ends the name of a checkpoint that was set aside."""


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

    def damage(self) -> str | None:
        """What is wrong with its files; None if they are as written, or nothing is known of that.

        Checkpoints of earlier versions of this program have no checksums.
        """
        try:
            return difference(self.trainer, _facts(self.path).get("files", {}))
        except (OSError, ValueError, TypeError, AttributeError) as exc:
            return f"{_FACTS}: {exc}"


def _facts(path: Path) -> dict[str, Any]:
    """What ``run.json`` says.

    Raises:
        OSError: it cannot be read.
        ValueError, KeyError, TypeError, AttributeError: it is not what was written.
    """
    facts: dict[str, Any] = json.loads((path / _FACTS).read_text())
    if seal_broken(facts):
        raise ValueError("its text is not what was written")
    return facts


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
        """The newest, sound or not."""
        found = self.all()
        return found[-1] if found else None

    def newest_sound(self, note: Callable[[str], None]) -> Checkpoint | None:
        """The one to go on from; newer ones that are damaged are set aside.

        All files of the newest are read for this.

        Args:
            note: told of each that is set aside.

        Raises:
            BackendError: there were some, and all of them are damaged.
        """
        reasons = []
        for path, reason in self._unreadable():
            reasons.append(self._set_aside(path, reason, note))
        while (found := self.newest()) is not None:
            damage = found.damage()
            if damage is None:
                return found
            reasons.append(self._set_aside(found.path, damage, note))
        if reasons:
            raise BackendError(
                f"{self._folder}: no checkpoint to go on from is sound: {'; '.join(reasons)}"
            )
        return None

    def _set_aside(self, path: Path, reason: str, note: Callable[[str], None]) -> str:
        """Keep a damaged checkpoint under a name that nobody takes it by."""
        aside = path.with_name(path.name + DAMAGED)
        shutil.rmtree(aside, ignore_errors=True)
        path.replace(aside)
        told = f"{path.name}: {reason}"
        note(f"the checkpoint {told}; it is damaged, and set aside as {aside.name}")
        return told

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
            files = await asyncio.to_thread(checksums, part / TRAINER)
            facts = {"version": version, "journal_entries": entries, "files": files}
            text = json.dumps(sealed(facts), indent=1)
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

    def _paths(self) -> Iterator[Path]:
        for path in self._folder.glob("step-*"):
            if path.suffix not in (".part", ".gone", DAMAGED):
                yield path

    def _read(self) -> Iterator[Checkpoint]:
        return (found for found in map(_look, self._paths()) if isinstance(found, Checkpoint))

    def _unreadable(self) -> list[tuple[Path, str]]:
        """Folders that were checkpoints once, and what is wrong with each."""
        looks = [(path, _look(path)) for path in sorted(self._paths())]
        return [(path, found) for path, found in looks if isinstance(found, str)]


def _look(path: Path) -> Checkpoint | str:
    """A checkpoint, or why it is none."""
    try:
        facts = _facts(path)
        return Checkpoint(path, int(facts["version"]), int(facts["journal_entries"]))
    except KeyError as exc:
        return f"{_FACTS}: has no {exc}"
    except OSError as exc:
        return f"{_FACTS}: {exc.strerror or exc}"
    except (ValueError, TypeError, AttributeError) as exc:
        return f"{_FACTS}: {exc}"


def _settle(folder: Path) -> None:
    """See to it that the names in a folder outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
