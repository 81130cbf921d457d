"""What this machine is. Looks and reads; starts and loads nothing.

Versions come from package metadata and GPUs from ``nvidia-smi``, so that it works, and is quick,
where the back ends are missing.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import importlib.metadata
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU: its name, its memory in bytes, the driver's version."""

    name: str
    memory_bytes: int
    driver: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What was found.

    Attributes:
        python: version.
        cores: CPU cores this process may use.
        memory_bytes: free memory of the host, within the limit of its container.
        disk_folder, disk_bytes: a folder and what is free there.
        shm_bytes: free in /dev/shm.
        open_files: how many files a process may open, once it has raised its limit.
        gpus: that this process may use.
        packages: version of each package asked for; None: not installed.
        bubblewrap: its version; None: not installed.
        ports: how many of those asked for could be opened at once.
    """

    python: tuple[int, ...]
    cores: int
    memory_bytes: int
    disk_folder: Path
    disk_bytes: int
    shm_bytes: int
    open_files: int
    gpus: tuple[Gpu, ...]
    packages: Mapping[str, str | None]
    bubblewrap: str | None
    ports: int


def look(folder: Path, packages: Iterable[str], *, host: str, ports: int) -> Machine:
    """Look at this machine.

    Args:
        folder: where a run's directory would be; it or the next folder above it is looked at.
        packages: whose versions are asked for.
        host: an address of this machine.
        ports: how many free ones are asked for on it.
    """
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return Machine(
        python=sys.version_info[:2],
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=_free_memory(),
        disk_folder=folder,
        disk_bytes=shutil.disk_usage(folder).free,
        shm_bytes=shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else 0,
        open_files=_open_files(),
        gpus=visible(_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES")),
        packages={name: _version(name) for name in packages},
        bubblewrap=_output(["bwrap", "--version"]),
        ports=free_ports(host, ports),
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _output(command: Sequence[str]) -> str | None:
    """What a command prints; None if it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _gpus() -> list[tuple[str, Gpu]]:
    fields = "uuid,name,memory.total,driver_version"
    text = _output(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"])
    return parse_gpus(text or "")


def parse_gpus(text: str) -> list[tuple[str, Gpu]]:
    """UUID and GPU of each line that ``nvidia-smi`` prints; lines of another form are left out."""
    found = []
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) == 4 and row[2].strip().isdigit():
            uuid, name, mebibytes, driver = (cell.strip() for cell in row)
            gpu = Gpu(name=name, memory_bytes=int(mebibytes) * 2**20, driver=driver)
            found.append((uuid, gpu))
    return found


def visible(gpus: Sequence[tuple[str, Gpu]], variable: str | None) -> tuple[Gpu, ...]:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` leaves: numbers or beginnings of UUIDs.

    As CUDA does, it stops at the first entry that is none.
    """
    if variable is None:
        return tuple(gpu for _, gpu in gpus)
    chosen: list[Gpu] = []
    for entry in (part.strip() for part in variable.split(",")):
        if entry.isdigit():
            matching = [gpu for _, gpu in gpus[int(entry) : int(entry) + 1]]
        else:
            matching = [gpu for uuid, gpu in gpus if entry and uuid.startswith(entry)]
        if len(matching) != 1:
            break
        chosen += matching
    return tuple(chosen)


def _free_memory() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
            break
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, used = (Path("/sys/fs/cgroup") / f"memory.{name}" for name in ("max", "current"))
    try:
        return min(free, int(limit.read_text()) - int(used.read_text()))
    except (OSError, ValueError):  # no such limit, or "max"
        return free


def _open_files() -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 2**20 if hard == resource.RLIM_INFINITY else hard


def free_ports(host: str, count: int) -> int:
    """How many of so many ports could be opened at once on an address."""
    with contextlib.ExitStack() as opened:
        for found in range(count):
            try:
                family, kind, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[
                    0
                ]
                one = opened.enter_context(socket.socket(family, kind))
                one.bind(address)
                one.listen()
            except OSError:
                return found
    return count
