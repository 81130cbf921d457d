"""Looking at processes from outside."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def group(leader: int) -> list[int]:
    """Processes of a process group that are more than a zombie."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, _, number = (process / "stat").read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(number) == leader and state != "Z":
            found.append(int(process.name))
    return found


def wait_for(true: Callable[[], object]) -> None:
    give_up_s = time.monotonic() + 30
    while not true():
        assert time.monotonic() < give_up_s, "waited in vain"
        time.sleep(0.01)
