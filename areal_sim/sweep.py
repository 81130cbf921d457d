"""Many simulations: at the same time, each done once, and resumable.

A result is kept under the hash of its configuration and of the simulator's own source, so a sweep
that was interrupted goes on where it was, two sweeps share what they have in common, and a change
of the model starts anew. Where they are carried out is a choice of `areal_sim.pools`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from areal_sim.config import RunConfig, config_sha256
from areal_sim.pools import Pool, Summary, SweepError, Task
from areal_sim.pools.local import LocalPool
from areal_sim.pools.work import source_sha256

__all__ = ["Summary", "SweepError", "sweep"]


def sweep(
    configs: Mapping[str, RunConfig],
    *,
    cache: Path,
    jobs: int | None = None,
    pool: Pool | None = None,
    done: Callable[[int, int], None] | None = None,
) -> dict[str, Summary]:
    """Simulate each configuration, unless that was done before.

    Args:
        configs: by name, which is the run's name.
        cache: the folder results are kept in; made if it is not there.
        jobs: processes at a time; the machine's cores by default.
        pool: where to simulate; ``LocalPool(jobs)`` by default. It is not used if there is nothing
            to do.
        done: called with how many there are and how many there will be, at first and with each.

    Returns:
        Summaries by name, in the order given.

    Raises:
        ConfigError: a configuration cannot be simulated. What was finished is kept, as after
            Ctrl-C.
        SweepError: a process was killed; what was finished is kept.
        ValueError: `jobs` is below one.
    """
    if pool is None:
        pool = LocalPool(jobs)
    cache.mkdir(parents=True, exist_ok=True)
    files = {name: cache / f"{_key(config)}.json" for name, config in configs.items()}
    todo: dict[Path, str] = {}  # one name for each, as two configurations may be the same
    for name, file in files.items():
        if _read(file) is None:
            todo.setdefault(file, name)
    if done is not None:
        done(0, len(todo))
    if todo:
        kept: set[str] = set()

        def keep(name: str, summary: Summary) -> None:
            _write(files[name], summary)
            kept.add(name)
            if done is not None:
                done(len(kept), len(todo))

        # Long runs first, so that none of them is left alone at the end.
        tasks = [Task(name, configs[name]) for name in todo.values()]
        pool.run(sorted(tasks, key=lambda task: -_trajectories(task.config)), keep)
    results = {}
    for name, file in files.items():
        found = _read(file)
        assert found is not None
        results[name] = {**found, "name": name}
    return results


def _trajectories(config: RunConfig) -> int:
    """How much a simulation is about, for the order of some."""
    return config.workload.steps * config.limits().train_batch_rollouts


def _key(config: RunConfig) -> str:
    both = config_sha256(config) + source_sha256()
    return hashlib.sha256(both.encode()).hexdigest()[:32]


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
