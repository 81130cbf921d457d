"""Many real runs that differ in a few keys, one after the other, taken up again where they stopped.

A sweep's file is explained in `areal_sched.config.sweeps`. ``results.jsonl`` in the sweep's folder
has one small line per finished run: what figures and tables need of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from areal_real.config import RealConfig, config_sha256, load_config
from areal_real.rows import read_rows, write_rows
from areal_sched.config import sweeps
from areal_sched.errors import ConfigError

RESULTS = "results.jsonl"

SweepRun: TypeAlias = sweeps.SweepRun[RealConfig]
"""One run of a sweep: its name, which is its folder's too, and what it varies."""


def read_sweep(path: Path) -> list[SweepRun]:
    """Read a sweep's file; see `areal_sched.config.sweeps.read_sweep`."""
    return sweeps.read_sweep(path, load_config)


def sweep(
    runs: list[SweepRun],
    folder: Path,
    one: Callable[[SweepRun, Path, bool], bool],
) -> Iterator[tuple[SweepRun, dict[str, Any]]]:
    """Carry out what is not done.

    Args:
        runs: all of the sweep's.
        folder: where run directories and results go; made if it is not there.
        one: carries out or resumes a run in a folder; returns whether it came to its end.

    Yields:
        Each run with its result, also those done before; ends early with a run that was stopped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for run in runs:
        done = {row["name"]: row for row in read_rows(folder / RESULTS)}
        sha256 = config_sha256(run.config)
        if run.name in done and done[run.name]["config_sha256"] != sha256:
            raise ConfigError(
                f"{folder / RESULTS}: {run.name} was another configuration; sweep into another"
                " folder, or delete this line and its run"
            )
        if run.name not in done:
            path = folder / run.name
            if not one(run, path, (path / "config.toml").exists()):
                return
            row = result_of(run, path)
            write_rows(folder / RESULTS, [*done.values(), row])
            done[run.name] = row
        yield run, done[run.name]


def result_of(run: SweepRun, path: Path) -> dict[str, Any]:
    """What is kept of a finished run.

    Returns:
        ``name``, ``config_sha256``, ``settings``, ``minutes`` from the first rollout to the last
        step, ``held_out`` (pairs of step and accuracy), ``reward``, ``lag_mean``, ``entropy`` and
        ``grad_norm`` by step, ``time_s`` at which each step ended, and the summary's ``idle``
        shares.
    """
    rows = read_rows(path / "metrics.jsonl")
    held_out = read_rows(path / "held_out.jsonl")
    summary = json.loads((path / "summary.json").read_text())

    def column(name: str, digits: int) -> list[float]:
        return [round(float(row.get(name, 0.0)), digits) for row in rows]

    return {
        "name": run.name,
        "config_sha256": config_sha256(run.config),
        "settings": dict(run.settings),
        "minutes": round(rows[-1]["time_s"] / 60, 3) if rows else 0.0,
        "held_out": [[int(row["step"]), row["accuracy"]] for row in held_out],
        "time_s": column("time_s", 2),
        "reward": column("reward", 4),
        "lag_mean": column("lag/mean", 3),
        "entropy": column("trainer/entropy", 4),
        "grad_norm": column("trainer/grad_norm", 4),
        "idle": {side: round(x, 4) for side, x in summary["idle_share"].items() if x is not None},
    }
