"""A disk that is full, and has room again: the run directory on a small one of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks.faults.bench import Bench, Fault, Scenario
from benchmarks.faults.drive import RunFailed
from benchmarks.faults.moments import generating, in_step, saving

DISK_BYTES = 48 << 20
FILLER = "filler"
WEIGHTS_FIT = 850_000
"""Bytes: weights need 320 kB, a checkpoint three times that, and a note comes after one or two."""
BATCHES_FIT = 150_000
NO_CHECKPOINT = "no checkpoint of step"


def unable() -> str | None:
    """Why no disk can be mounted here."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return "mounting a small disk takes root"
    return None


@contextlib.contextmanager
def small_disk(home: Path) -> Iterator[Mapping[str, str]]:
    """The run directory is a disk in memory."""
    place = home / "run"
    place.mkdir()
    options = f"size={DISK_BYTES}"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, text=True
    )
    if done.returncode:
        raise RunFailed(f"cannot mount a disk: {done.stderr.strip()}")
    try:
        yield {}
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


def fill(bench: Bench, leave_bytes: int) -> None:
    """Take all room but so much; also what has been deleted since the last time."""
    room = os.statvfs(bench.folder)
    more = room.f_bavail * room.f_frsize - leave_bytes
    if more > 0:
        with (bench.folder / FILLER).open("ab") as file, contextlib.suppress(OSError):
            os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, more)


def free(bench: Bench) -> None:
    """Give the room back."""
    (bench.folder / FILLER).unlink(missing_ok=True)


def _fill(leave_bytes: int) -> Callable[[Bench], None]:
    """Until the run has ended of it."""

    def act(bench: Bench) -> None:
        while bench.run.process.poll() is None:
            fill(bench, leave_bytes)
            time.sleep(0.01)

    return act


def _fill_for_a_checkpoint(bench: Bench) -> None:
    before = bench.run.text.count(NO_CHECKPOINT)

    def noted() -> bool:
        fill(bench, WEIGHTS_FIT)
        return bench.run.text.count(NO_CHECKPOINT) > before

    bench.until(noted, "a note of it")
    free(bench)


def _kill(bench: Bench) -> None:
    bench.run.kill()


def _resume_on_a_full_disk(bench: Bench) -> None:
    fill(bench, 0)
    bench.resume()
    status = bench.run.wait()
    if status == 0:
        raise RunFailed("the run went on, on a full disk")
    free(bench)


NO_ROOM = r"(\S+: (?:No space left on device|database or disk is full))"

DISK = Scenario(
    name="disk",
    steps=60,
    around=small_disk,
    unable=unable,
    faults=[
        Fault(
            what="disk full during a checkpoint",
            aim=saving,
            act=_fill_for_a_checkpoint,
            noted=r"(no checkpoint of step .*)",
        ),
        Fault(
            what="disk full while weights are written; room again, --resume",
            aim=in_step,
            act=_fill(BATCHES_FIT),
            noted=NO_ROOM,
            ends=1,
            heal=free,
        ),
        Fault(
            what="disk full for journal and trajectory store; room again, --resume",
            aim=generating,
            act=_fill(0),
            noted=NO_ROOM,
            ends=1,
            heal=free,
        ),
        Fault(
            what="kill -9 of the program, disk full at --resume; room again, --resume",
            aim=generating,
            act=_kill,
            noted=NO_ROOM,
            ends=-9,
            heal=_resume_on_a_full_disk,
            faults=2,
        ),
    ],
)
