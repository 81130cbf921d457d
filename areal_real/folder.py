"""Where things lie in a real run's directory, beside what `analysis.rundir` puts there."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from areal_real.config import RealConfig, differences, load_config
from areal_real.rows import read_rows, write_rows
from areal_sched.errors import ConfigError

CONFIG = "config.toml"
JOURNAL = "journal.jsonl.gz"

SHOWN = 3
"""So many of the keys in which two configurations differ are named."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A real run's directory.

    ``model/`` is what the run began with, ``weights/000012/`` a published version,
    ``checkpoints/`` what it can be resumed from, ``trajectories.sqlite`` what servers generated,
    ``logs/`` what servers and trainer printed, ``token`` what they ask for, ``metrics.jsonl``,
    ``tensorboard/`` and ``held_out.jsonl`` how it learns.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / CONFIG

    @property
    def config_part(self) -> Path:
        """The same while it is written."""
        return self.path / (CONFIG + ".part")

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

    def new_token(self) -> str:
        """A fresh token, which every control endpoint of the run asks for from now on.

        Also in the file ``token``, for its owner alone, who may want to ask a server something.
        """
        token = secrets.token_hex(32)
        part = self.path / "token.part"
        part.unlink(missing_ok=True)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token + "\n")
        part.replace(self.path / "token")
        return token

    def make(self) -> None:
        """Make the folders."""
        for path in (self.checkpoints, self.batches, self.logs, self.weights(0).parent):
            path.mkdir(parents=True, exist_ok=True)

    @property
    def is_run(self) -> bool:
        """Whether a real run is, or was about to be, here."""
        return self.config.exists() and self.checkpoints.is_dir()

    def check_same(self, config: RealConfig) -> None:
        """Hold a configuration against the one of the run that is here.

        Raises:
            ConfigError: they differ in more than the number of steps and in where the run's parts
                listen, or it cannot be read.
        """
        try:
            before = load_config(self.config)
        except ConfigError as exc:
            raise ConfigError(f"--out {self.path}: no real run is there: {exc}") from None
        found = differences(_comparable(before), _comparable(config))
        if found:
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            raise ConfigError(
                f"--out {self.path}: the run there had another configuration (see {self.config}):"
                f" {'; '.join(found[:SHOWN])}{more}; only workload.steps and real.listen may change"
            )

    def forget_beginning(self) -> None:
        """Remove what a program leaves that ended in its very first write."""
        if self.path.is_dir() and [*self.path.iterdir()] == [self.config_part]:
            self.config_part.unlink()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other programs out, for as long as this one lives.

        Raises:
            ConfigError: another one is at work here.
        """
        with (self.path / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(f"{self.path}: another program is at work here") from None
            yield

    def clear(self) -> None:
        """Remove a run that was here."""
        shutil.rmtree(self.path, ignore_errors=True)

    def set_journal_aside(self) -> None:
        """Give the journal of a run that is resumed a second name, under which it stays."""
        if not self.journal.exists():
            return
        number = 1
        while (aside := self.path / f"journal.before-resume-{number}.jsonl.gz").exists():
            number += 1
        os.link(self.journal, aside)

    def forget_after(self, version: int) -> None:
        """Delete what later steps, which are taken back, published and what came of it."""
        for later in self.versions():
            if later > version:
                shutil.rmtree(self.weights(later), ignore_errors=True)
        rows = read_rows(self.held_out)
        write_rows(self.held_out, [row for row in rows if row["step"] <= version])

    def end_ids(self) -> set[int]:
        """Tokens that end an answer, by the model's own files."""
        found: set[int] = set()
        for name in ("config.json", "generation_config.json"):
            try:
                ids = json.loads((self.model / name).read_text()).get("eos_token_id")
            except (OSError, ValueError, AttributeError):
                continue
            found |= set(ids if isinstance(ids, list) else [] if ids is None else [ids])
        return found


def _comparable(config: RealConfig) -> RealConfig:
    """Without what a run may change on its way: its length, and where it is placed."""
    workload = dataclasses.replace(config.workload, steps=1)
    real = dataclasses.replace(config.real, listen="loopback")
    return dataclasses.replace(config, workload=workload, real=real)
