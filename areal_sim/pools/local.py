"""Simulations in processes of this machine."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Self

from areal_sim.pools import Summary, SweepError, Task
from areal_sim.pools.work import simulate_task


class LocalPool:
    """Processes of this machine; a `areal_sim.pools.Pool`.

    Inside a ``with`` they live until its end, for runs one after the other; else until the end of
    each run.

    Args:
        jobs: processes at a time; the machine's cores by default.

    Raises:
        ValueError: `jobs` is below one.
    """

    def __init__(self, jobs: int | None = None) -> None:
        if jobs is not None and jobs < 1:
            raise ValueError(f"jobs = {jobs}: must be at least 1")
        self._jobs = jobs or os.cpu_count() or 1
        self._kept: ProcessPoolExecutor | None = None
        self._entered = False

    def __enter__(self) -> Self:
        """Keep the processes."""
        self._entered = True
        return self

    def __exit__(self, *_: object) -> None:
        """End them."""
        self._entered = False
        if self._kept is not None:
            self._kept.shutdown(wait=True, cancel_futures=True)
            self._kept = None

    def run(self, tasks: Sequence[Task], keep: Callable[[str, Summary], None]) -> None:
        """See `areal_sim.pools.Pool.run`."""
        pool = self._kept or _processes(
            self._jobs if self._entered else min(self._jobs, len(tasks))
        )
        pending: dict[Future[Summary], str] = {}
        self._kept = None  # until it is known to be whole
        whole = False
        try:
            for task in tasks:
                pending[pool.submit(simulate_task, task.config, task.name)] = task.name
            while pending:
                finished, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    keep(pending[future], future.result())
                    del pending[future]
            whole = True
        except BaseException as exc:
            for future, name in pending.items():
                if future.done() and not future.cancelled() and future.exception() is None:
                    keep(name, future.result())
            for process in list((pool._processes or {}).values()):
                process.terminate()
            if isinstance(exc, BrokenProcessPool):
                raise SweepError(
                    "a process of the sweep was killed, for want of memory perhaps: try fewer"
                    " --jobs; what was finished is kept"
                ) from None
            raise
        finally:
            if whole and self._entered:
                self._kept = pool
            else:
                pool.shutdown(wait=True, cancel_futures=True)


def _processes(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)


def _begin() -> None:
    """In each process: Ctrl-C is for the one that started it, and without that one it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
