"""Faults of the program itself: killed and resumed, held, and with a clock that jumps."""

from __future__ import annotations

import contextlib
import ctypes.util
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil

from benchmarks.faults.bench import Bench, Fault, Scenario
from benchmarks.faults.moments import exporting, generating, in_step, loading, saving
from benchmarks.faults.under_clock import SHOWN

RESUMED = r"(going on from step \d+: .* are taken back)"


def _kill(bench: Bench) -> None:
    bench.run.kill()


def _kill_while_it_resumes(bench: Bench) -> None:
    """The next one is killed too, when its parts are up and the journal is about to be replaced."""
    bench.resume()
    inode = (bench.folder / "journal.jsonl.gz").stat().st_ino
    bench.run.until(
        lambda: (bench.folder / "journal.jsonl.gz").stat().st_ino != inode,
        what="the resumption",
        every_s=0.001,
    )
    bench.run.kill()


def _kill_while_parts_start(bench: Bench) -> None:
    bench.resume()
    bench.run.until(lambda: len(bench.run.left()) >= 3, what="its parts")
    bench.run.kill()


def _interrupt(bench: Bench) -> None:
    os.kill(bench.run.process.pid, signal.SIGINT)


def _hold(seconds: float) -> Callable[[Bench], None]:
    def act(bench: Bench) -> None:
        process = psutil.Process(bench.run.process.pid)
        process.suspend()
        time.sleep(seconds)
        process.resume()

    return act


def _killed(what: str, aim: Callable[[Bench], object], **more: object) -> Fault:
    return Fault(what=what, act=_kill, aim=aim, noted=RESUMED, ends=-9, **more)  # type: ignore[arg-type]


CONTROLLER = Scenario(
    name="controller",
    steps=60,
    faults=[
        Fault(
            what="the program stands still for 10 s (SIGSTOP)",
            act=_hold(10),
            aim=generating,
        ),
        _killed("kill -9 of the program while servers generate; --resume", generating),
        _killed("kill -9 of the program while a server loads; --resume", loading),
        _killed("kill -9 of the program in a training step; --resume", in_step),
        _killed("kill -9 of the program while weights are written; --resume", exporting),
        _killed("kill -9 of the program in a checkpoint; --resume", saving),
        _killed(
            "kill -9 of the program, and of the resumed one while its parts start; --resume",
            generating,
            heal=_kill_while_parts_start,
            faults=2,
        ),
        _killed(
            "kill -9 of the program, and of the resumed one as it goes on; --resume",
            generating,
            heal=_kill_while_it_resumes,
            faults=2,
        ),
        Fault(
            what="Ctrl-C in a training step; --resume",
            act=_interrupt,
            aim=in_step,
            noted=RESUMED,
            ends=130,
        ),
    ],
)


def _faketime() -> Path | None:
    """The library, of the Debian package faketime."""
    for folder in Path("/usr/lib").glob("*/faketime"):
        library = folder / "libfaketimeMT.so.1"
        if library.exists():
            return library
    found = ctypes.util.find_library("faketimeMT")
    return Path(found) if found else None


CLOCK_FILE = "clock"


@contextlib.contextmanager
def movable_clock(home: Path) -> Iterator[Mapping[str, str]]:
    """The program's wall clock is what a file says; its monotonic clock is as it was."""
    (home / CLOCK_FILE).write_text("+0h\n")
    yield {
        "LD_PRELOAD": str(_faketime()),
        "FAKETIME_TIMESTAMP_FILE": str(home / CLOCK_FILE),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
        SHOWN: str(home / "shown"),
    }


def _jump(hours: int) -> Callable[[Bench], None]:
    """Set the clock so many hours before or after the true time."""

    def act(bench: Bench) -> None:
        home = bench.folder.parent
        part = home / f"{CLOCK_FILE}.part"
        part.write_text(f"{hours:+d}h\n")
        part.replace(home / CLOCK_FILE)

        def jumped() -> bool:
            with contextlib.suppress(OSError, ValueError):
                shown_s = float((home / "shown").read_text())
                return abs(shown_s - time.time() - hours * 3600) < 60
            return False

        bench.until(jumped, "another time")

    return act


MONOTONIC = "not at all: times are taken from the monotonic clock"

CLOCK = Scenario(
    name="clock",
    steps=80,
    module="benchmarks.faults.under_clock",
    around=movable_clock,
    unable=lambda: None if _faketime() else "libfaketime is not installed (apt install faketime)",
    faults=[
        Fault(what="the clock jumps 5 h ahead", act=_jump(5), aim=generating, noticed=MONOTONIC),
        Fault(what="the clock jumps 14 h back", act=_jump(-9), aim=in_step, noticed=MONOTONIC),
        Fault(what="the clock jumps 9 h ahead", act=_jump(0), aim=loading, noticed=MONOTONIC),
    ],
)
