"""Handing a script to ``sbatch``, and following the job until it ends."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from areal_real.errors import BackendError
from areal_real.slurm.options import JobOptions

POLL_S = 2.0
"""How often a job that is followed is looked at; each look asks the controller, which all share."""

ENDED = frozenset(
    {
        *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"),
        *("BOOT_FAIL", "DEADLINE", "PREEMPTED"),
    }
)
"""States of a job that nothing follows on."""

SILENCE_S = 300.0
"""A controller that does not answer for so long is given up."""

_FIELD = re.compile(
    r"(?:^| )(JobId|ArrayJobId|ArrayTaskId|JobState|ExitCode|Restarts|Reason)=(\S*)"
)


@dataclass(frozen=True, slots=True)
class Task:
    """A job, or one of an array, as ``scontrol show job`` tells of it."""

    state: str
    exit_code: str
    restarts: int
    reason: str


def submit(options: JobOptions, text: str) -> str:
    """Write the script beside the run directory and submit it; returns the job's number.

    Raises:
        BackendError: there is no sbatch here, or it refuses the job, with its words.
    """
    sbatch = program("sbatch")
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / "job.sh"
    path.write_text(text)
    done = subprocess.run(
        [sbatch, "--parsable", str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip() or f"exit status {done.returncode}"
        raise BackendError(f"sbatch refused {path}: {said}")
    if done.stderr.strip():
        print(done.stderr.strip(), file=sys.stderr)
    return done.stdout.strip().partition(";")[0]


def program(name: str) -> str:
    """Where one of SLURM's programs is.

    Raises:
        BackendError: it is not there.
    """
    found = shutil.which(name)
    if found is None:
        raise BackendError(
            f"{name}: no such program here; submit from where SLURM's client programs are, or look"
            " at the script with --dry-run"
        )
    return found


def follow(number: str, options: JobOptions, tell: Callable[[str], None]) -> bool:
    """Copy what the job prints to stdout until it has ended; whether the run is complete.

    Args:
        number: the job's.
        options: of the job.
        tell: told of each change of state, and of the end.

    Raises:
        BackendError: SLURM does not answer any more.
    """
    scontrol = program("scontrol")
    logs = Logs(options.folder, number)
    known: dict[str, Task] = {}
    answered_s = time.monotonic()
    while True:
        done = subprocess.run(
            [scontrol, "show", "job", "--oneliner", number],
            capture_output=True,
            text=True,
            check=False,
        )
        found = parse_tasks(done.stdout) if done.returncode == 0 else {}
        if found:
            answered_s = time.monotonic()
        for name, task in found.items():
            before = known.get(name)
            if before is None or (before.state, before.restarts) != (task.state, task.restarts):
                attempt = f", attempt {task.restarts + 1}" if task.restarts else ""
                waits = f" ({task.reason})" if task.state == "PENDING" else ""
                tell(f"job {name}: {task.state}{waits}{attempt}")
            known[name] = task
        logs.copy(sys.stdout.buffer)
        if known and all(task.state in ENDED for task in known.values()):
            break
        if "Invalid job id" in done.stderr and known:
            tell(f"job {number}: SLURM has forgotten it; the log says how it ended")
            return False
        if time.monotonic() - answered_s > SILENCE_S:
            raise BackendError(f"scontrol show job {number}: {done.stderr.strip()}")
        time.sleep(POLL_S)
    logs.copy(sys.stdout.buffer)
    for name, task in known.items():
        if task.state != "COMPLETED":
            tell(f"job {name} ended: {task.state}, exit code {task.exit_code}")
    return all(task.state == "COMPLETED" for task in known.values())


def parse_tasks(text: str) -> dict[str, Task]:
    """Jobs by their name, ``12`` or ``12_3``, from ``scontrol show job --oneliner``."""
    tasks = {}
    for line in text.splitlines():
        field = {match[1]: match[2] for match in _FIELD.finditer(line)}
        if "JobState" not in field:
            continue
        name = field["JobId"]
        if "ArrayTaskId" in field:
            name = f"{field['ArrayJobId']}_{field['ArrayTaskId']}"
        tasks[name] = Task(
            state=field["JobState"],
            exit_code=field.get("ExitCode", ""),
            restarts=int(field.get("Restarts", 0)),
            reason=field.get("Reason", ""),
        )
    return tasks


class Logs:
    """What a job's tasks print, as far as it has been copied."""

    def __init__(self, folder: Path, number: str) -> None:
        self._folder = folder
        self._name = re.compile(rf"{re.escape(number)}(_\d+)?\.out")
        self._read: dict[Path, int] = {}

    def copy(self, output: BinaryIO) -> None:
        """Copy what is new; of several tasks, one after the other."""
        for path in sorted(self._folder.iterdir()):
            if not self._name.fullmatch(path.name):
                continue
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                output.write(file.read())
                self._read[path] = file.tell()
        output.flush()
