"""One ``areal-real train`` as a process of its own, and everything that runs below it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "configs" / "real" / "tiny-cpu.toml"
MARK = "AREAL_FAULTS_RUN"
"""In the environment of all processes of a run: they are found by its value."""

PATIENCE_S = 300.0
"""For anything that is waited for; a busy machine starts a server in a minute."""


class RunFailed(Exception):
    """The run ended, or did not do what was waited for; holds the end of what it printed."""


class RealRun:
    """``areal-real train`` on the tiny configuration.

    Args:
        folder: the run directory.
        settings: what differs from the configuration file, by key.
        resume: go on with the run there.
        environment: variables in addition.
        module: has the same command line as ``areal_real.cli``.
        more: further arguments of the command.

    Attributes:
        log: what it prints, appended over resumptions.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, object],
        *,
        resume: bool,
        environment: Mapping[str, str] | None = None,
        module: str = "areal_real.cli",
        more: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.log = folder.with_name(folder.name + ".log")
        self.mark = (environment or {}).get(MARK) or uuid.uuid4().hex
        overrides = [x for key, value in settings.items() for x in ("--set", f"{key}={value}")]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", module, "train", str(TINY)),
                    *("--out", str(folder), *overrides),
                    *(["--resume"] if resume else []),
                    *more,
                ],
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env={**os.environ, **(environment or {}), MARK: self.mark},
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        """All it printed."""
        return self.log.read_text(errors="replace")

    @property
    def steps(self) -> int:
        """The last step it told of."""
        rows = metrics(self.folder)
        return int(rows[-1]["step"]) if rows else 0

    def until(
        self,
        condition: Callable[[], object],
        *,
        what: str = "what was waited for",
        patience_s: float = PATIENCE_S,
        every_s: float = 0.05,
    ) -> None:
        """Wait while the run goes on.

        Raises:
            RunFailed: it ended, or the patience did.
        """
        end_s = time.monotonic() + patience_s
        while not condition():
            if self.process.poll() is not None:
                raise RunFailed(f"it ended ({self.process.returncode}) before {what}\n{self.tail}")
            if time.monotonic() > end_s:
                raise RunFailed(f"{patience_s:g} s without {what}\n{self.tail}")
            time.sleep(every_s)

    @property
    def tail(self) -> str:
        """The last lines it printed."""
        return "\n".join(self.text.splitlines()[-15:])

    def parts(self, *words: str) -> list[psutil.Process]:
        """Its processes whose command line has one of these words, oldest first."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                line = " ".join(process.cmdline()) or process.name()
                if any(word in line for word in words):
                    found.append((process.create_time(), process.pid, process))
        return [process for *_, process in sorted(found)]

    def ranks(self) -> dict[int, psutil.Process]:
        """The trainer's processes by rank."""
        found = {}
        for process in self.parts("areal_real.training.worker"):
            with contextlib.suppress(psutil.Error):
                if "torch.distributed.run" not in " ".join(process.cmdline()):
                    found[int(process.environ()["RANK"])] = process
        return found

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        """Its exit status.

        Raises:
            RunFailed: it goes on and on.
        """
        try:
            return self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            raise RunFailed(f"it has not ended after {patience_s:g} s\n{self.tail}") from None

    def kill(self) -> None:
        """``kill -9`` of the program itself."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def left(self) -> list[psutil.Process]:
        """Processes of this run that live."""
        return processes_of(self.mark)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Whole lines of a run's ``metrics.jsonl``."""
    path = folder / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def processes_of(mark: str) -> list[psutil.Process]:
    """All processes that have a run's mark in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            alive = process.status() != psutil.STATUS_ZOMBIE
            if alive and process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
    return found


def end_all(processes: Sequence[psutil.Process]) -> None:
    """Kill these, and wait for their end."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=20)
