"""Many simulations: in parallel processes, each done once, and resumable.

A result is kept under the hash of its configuration and of the simulator's own source, so a sweep
that was interrupted goes on where it was, two sweeps share what they have in common, and a change
of the model starts anew.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from areal_sched.errors import ArealError
from areal_sim.config import RunConfig, config_sha256

Summary = dict[str, Any]
"""What `analysis.summary.summarise` gives, but for the journal's hash."""

_SOURCES = ("areal_sched", "areal_sim", "traces", "analysis")
_KINDS = (".py", ".json", ".csv", ".toml")  # code, and the models and data it has with it


class SweepError(ArealError):
    """A process of a sweep ended before its simulation did."""


@functools.cache
def source_sha256() -> str:
    """Hash of every file of ours that a simulation's summary may depend on."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for package in _SOURCES:
        for file in sorted((root / package).rglob("*")):
            if file.suffix not in _KINDS or not file.is_file():
                continue
            digest.update(f"{file.relative_to(root)}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def sweep(
    configs: Mapping[str, RunConfig],
    *,
    cache: Path,
    jobs: int | None = None,
    done: Callable[[int, int], None] | None = None,
) -> dict[str, Summary]:
    """Simulate each configuration, unless that was done before.

    Args:
        configs: by name, which is the run's name.
        cache: the folder results are kept in; made if it is not there.
        jobs: processes at a time; the machine's cores by default.
        done: called with how many there are and how many there will be, at first and with each.

    Returns:
        Summaries by name, in the order given.

    Raises:
        ConfigError: a configuration cannot be simulated. What was finished is kept, as after
            Ctrl-C.
        SweepError: a process was killed; what was finished is kept.
        ValueError: `jobs` is below one.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs = {jobs}: must be at least 1")
    cache.mkdir(parents=True, exist_ok=True)
    files = {name: cache / f"{_key(config)}.json" for name, config in configs.items()}
    todo: dict[Path, str] = {}  # one name for each, as two configurations may be the same
    for name, file in files.items():
        if _read(file) is None:
            todo.setdefault(file, name)
    missing = len(todo)
    if done is not None:
        done(0, missing)
    if todo:
        workers = min(jobs or os.cpu_count() or 1, missing)
        pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)
        # Long runs first, so that none of them is left alone at the end.
        order = sorted(todo.items(), key=lambda item: -configs[item[1]].workload.steps)
        pending: dict[Future[Summary], Path] = {}
        try:
            for file, name in order:
                pending[pool.submit(_simulate, configs[name], name)] = file
            while pending:
                finished, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    _write(pending[future], future.result())
                    del pending[future]
                if done is not None:
                    done(missing - len(pending), missing)
        except BaseException as exc:
            for future, file in pending.items():
                if future.done() and not future.cancelled() and future.exception() is None:
                    _write(file, future.result())
            for process in list((pool._processes or {}).values()):
                process.terminate()
            if isinstance(exc, BrokenProcessPool):
                raise SweepError(
                    "a process of the sweep was killed, for want of memory perhaps: try fewer"
                    " --jobs; what was finished is kept"
                ) from None
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    results = {}
    for name, file in files.items():
        found = _read(file)
        assert found is not None
        results[name] = {**found, "name": name}
    return results


def _key(config: RunConfig) -> str:
    both = config_sha256(config) + source_sha256()
    return hashlib.sha256(both.encode()).hexdigest()[:32]


def _begin() -> None:
    """In each process: Ctrl-C is for the one that started it, and without that one it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _simulate(config: RunConfig, name: str) -> Summary:
    from areal_sim.rundir import simulate

    outcome = simulate(config, name=name)
    if outcome.interrupted:
        raise SweepError(f"{name}: its process was interrupted")
    summary = outcome.summary
    del summary["journal_sha256"]  # depends on the name
    return summary


def _read(file: Path) -> Summary | None:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(file.read_text())
        if isinstance(found, dict) and "step_time_s" in found:
            return found
    return None


def _write(file: Path, summary: Summary) -> None:
    draft = file.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps(summary))
    draft.replace(file)
