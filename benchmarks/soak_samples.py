"""What the processes of a run hold and what it puts on disk, sampled from outside with psutil.

Names of processes are by part and number in the order they were first seen, ``server 0 scheduler``;
a process that takes the place of one that ended has a name of its own, so that a series never
joins two processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

SHARED_MEMORY = Path("/dev/shm")

PARTS = (
    ("areal_real.training.worker", "trainer rank"),
    ("areal_real.rewards.worker", "reward worker"),
    ("sglang::scheduler", "server scheduler"),
    ("sglang::detokenizer", "server detokenizer"),
    ("cpu_launcher.py", "server HTTP"),
    ("sglang.launch_server", "server HTTP"),
    ("multiprocessing.resource_tracker", "resource tracker"),
    ("gcs_server", "Ray's store of the cluster"),
    ("raylet/raylet", "raylet"),
    ("ray::IDLE", "Ray worker at rest"),
    ("ray::", "Ray actor"),
    ("runtime_env/agent", "Ray's agent of environments"),
    ("dashboard/agent", "Ray's agent of the dashboard"),
    ("dashboard/dashboard.py", "Ray's dashboard"),
    ("log_monitor", "Ray's watch of logs"),
    ("autoscaler", "Ray's monitor"),
)
"""What a command line holds, and which part of a run that process is; the first that fits."""

OTHER = "other process"

FOLDERS = {
    "journal.jsonl.gz": "journal",
    "trajectories.sqlite": "trajectory store",
    "trajectories.sqlite-wal": "trajectory store",
    "trajectories.sqlite-shm": "trajectory store",
    "weights": "weights",
    "checkpoints": "checkpoints",
    "batches": "batches",
    "logs": "logs",
    "metrics.jsonl": "metrics",
    "tensorboard": "tensorboard",
    "model": "model",
}
"""Entries of a run directory, and the part of it they are."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """One process at one moment.

    Attributes:
        own_bytes: memory that no file backs: anonymous, shared or swapped out. What a program
            allocates is here, and here alone. Unlike the next three it does not change when another
            process maps the same libraries, or when a fork writes into a page.
        rss_bytes: its pages in memory, also those it shares.
        uss_bytes: those that only it has.
        pss_bytes: the same, and its share of shared ones.
        fds: open file descriptors.
        threads: threads.
    """

    own_bytes: int
    rss_bytes: int
    uss_bytes: int
    pss_bytes: int
    fds: int
    threads: int


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """A run at one moment.

    Attributes:
        time_s: since the sampling began.
        step: training steps finished.
        processes: by name.
        disk_bytes: by part: of the run directory, of temporary files, of shared memory.
    """

    time_s: float
    step: int
    processes: dict[str, Reading]
    disk_bytes: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """For a line of ``samples.jsonl``."""
        readings = {name: dataclasses.astuple(each) for name, each in self.processes.items()}
        return dataclasses.asdict(self) | {"processes": readings}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Sample:
        """The inverse of `to_json`."""
        readings = {name: Reading(*each) for name, each in values["processes"].items()}
        return cls(values["time_s"], values["step"], readings, values["disk_bytes"])


def read_samples(path: Path) -> list[Sample]:
    """All samples of a file.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is none; file, line and reason are named.
    """
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            found.append(Sample.from_json(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}:{number}: no sample: {error!r}") from None
    return found


class Sampler:
    """Samples a process, all that descend from it, and its folders.

    Args:
        pid: the run's own process, ``controller``.
        run: the run directory; need not be there yet.
        temporary: the folder that is the temporary one of the run's processes, and only theirs.
    """

    def __init__(self, pid: int, run: Path, temporary: Path) -> None:
        self._began_s = time.monotonic()
        self._root = psutil.Process(pid)
        self._run = run
        self._temporary = temporary
        self._known: dict[psutil.Process, str] = {self._root: "controller"}
        self._counts: Counter[str] = Counter()
        self.shared_files: set[Path] = set()

    def take(self, step: int) -> Sample:
        """Sample now.

        Args:
            step: training steps finished.
        """
        time_s = time.monotonic() - self._began_s
        readings: dict[str, Reading] = {}
        for process in self._processes():
            # One that ends while it is looked at is left out.
            with contextlib.suppress(psutil.Error, OSError):
                name = self._name(process)
                readings[name] = read_process(process)
                self.shared_files |= shared_files_of(process.pid)
        return Sample(time_s, step, readings, self._disk())

    def alive(self) -> dict[str, int]:
        """Process ids of those that have been seen and still run, by name."""
        return {name: process.pid for process, name in self._known.items() if _runs(process)}

    def _processes(self) -> list[psutil.Process]:
        """Those below the run's own, and those that were: a parent may end before its child."""
        with contextlib.suppress(psutil.Error):
            for process in self._root.children(recursive=True):
                self._known.setdefault(process, "")
        return [process for process in self._known if _runs(process)]

    def _name(self, process: psutil.Process) -> str:
        name = self._known[process]
        if not name or name.startswith(OTHER):
            command_line = process.cmdline()
            parent = process.parent()
            # What has just been forked still has its parent's command line.
            forked = parent is not None and parent.cmdline() == command_line
            part = OTHER if forked else part_of([process.name(), *command_line])
            if not name or part != OTHER:
                name = _numbered(part, self._counts[part])
                self._counts[part] += 1
                self._known[process] = name
        return name

    def _disk(self) -> dict[str, int]:
        found = dict.fromkeys(FOLDERS.values(), 0)
        found["other files"] = 0
        with contextlib.suppress(OSError):
            for entry in os.scandir(self._run):
                part = FOLDERS.get(entry.name, "other files")
                found[part] += bytes_below(Path(entry.path))
        found["temporary files"] = bytes_below(self._temporary)
        found["shared memory"] = sum(bytes_below(path) for path in self.shared_files)
        return found


def part_of(words: Sequence[str]) -> str:
    """Which part of a run a process is, by its name and command line.

    Those of SGLang that rename themselves have nothing in their command line any more.
    """
    line = " ".join(words)
    return next((part for word, part in PARTS if word in line), OTHER)


def _numbered(part: str, number: int) -> str:
    words = part.split(" ", 1)
    return f"server {number} {words[1]}" if words[0] == "server" else f"{part} {number}"


def _runs(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended and whose parent has not asked does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def read_process(process: psutil.Process) -> Reading:
    """Read one process.

    Raises:
        psutil.Error: it is gone, or somebody else's.
    """
    with process.oneshot():
        memory = process.memory_full_info()
        return Reading(
            own_bytes=own_bytes(process.pid),
            rss_bytes=memory.rss,
            uss_bytes=memory.uss,
            pss_bytes=memory.pss,
            fds=process.num_fds(),
            threads=process.num_threads(),
        )


def own_bytes(pid: int) -> int:
    """Memory of a process that no file backs: ``/proc/PID/status``, see proc(5).

    Raises:
        OSError: it is gone.
    """
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = re.findall(r"^(?:RssAnon|RssShmem|VmSwap):\s+(\d+) kB$", status, re.MULTILINE)
    return sum(map(int, found)) * 1024


def shared_files_of(pid: int) -> set[Path]:
    """Files of shared memory that a process has mapped."""
    try:
        text = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    found = re.findall(rf"{SHARED_MEMORY}/[^\s]+(?! \(deleted\))$", text, re.MULTILINE)
    return {Path(path) for path in found}


def bytes_below(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 if it is not there."""
    return sum(_sizes(path))


def _sizes(path: Path) -> Iterator[int]:
    try:
        if path.is_symlink() or not path.is_dir():
            yield path.lstat().st_size
            return
        entries: Iterable[os.DirEntry[str]] = list(os.scandir(path))
    except OSError:  # deleted meanwhile
        return
    for entry in entries:
        yield from _sizes(Path(entry.path))
