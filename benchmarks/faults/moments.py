"""Moments in a run, by its journal and its files, and ways to hurt what runs then."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable

import psutil

from benchmarks.faults.bench import Bench

SCHEDULER = "sglang::scheduler"
HTTP = "cpu_launcher"
JUDGE = "areal_real.rewards.worker"


def generating(bench: Bench) -> bool:
    """Servers work on rollouts, and load no weights."""
    state = bench.journal.state
    return state.running >= 4 and all(x.loading is None for x in state.servers.values())


def loading(bench: Bench) -> bool:
    """A server has been told to load weights, and has not yet."""
    return any(server.loading is not None for server in bench.journal.state.servers.values())


def in_step(bench: Bench) -> bool:
    """The trainer has a batch."""
    return bool(bench.journal.state.in_step and list((bench.folder / "batches").iterdir()))


def exporting(bench: Bench) -> bool:
    """The trainer writes weights for the servers."""
    return _has_part(bench, "weights")


def saving(bench: Bench) -> bool:
    """The trainer writes a checkpoint."""
    return _has_part(bench, "checkpoints")


def _has_part(bench: Bench, name: str) -> bool:
    with contextlib.suppress(OSError), os.scandir(bench.folder / name) as found:
        return any(entry.name.endswith(".part") for entry in found)
    return False


def servers(bench: Bench) -> list[psutil.Process]:
    """The servers' HTTP processes, which lead their process groups."""
    return bench.run.parts(HTTP)


def back(*server_ids: int) -> Callable[[Bench], object]:
    """These servers have joined again after the last losses of them."""

    def look(bench: Bench) -> object:
        return all(server_id in bench.journal.state.servers for server_id in server_ids)

    return look


def trainer_ready(bench: Bench) -> bool:
    """There is a trainer that can begin or is in a step."""
    state = bench.journal.state
    return state.trainer_ready or state.in_step


def kill(process: psutil.Process) -> None:
    """``kill -9``."""
    process.send_signal(signal.SIGKILL)


def limp(*processes: psutil.Process, seconds: float, stopped: float = 0.9) -> None:
    """Stop processes and let them go on, in turns: they are slow, and not dead.

    Args:
        processes: which.
        seconds: for so long.
        stopped: share of the time.
    """
    turn_s, end_s = 0.2, time.monotonic() + seconds
    try:
        while time.monotonic() < end_s:
            for process in processes:
                process.suspend()
            time.sleep(turn_s * stopped)
            for process in processes:
                process.resume()
            time.sleep(turn_s * (1 - stopped))
    finally:
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.resume()
