"""Many real runs that differ in a few keys, one after the other, taken up again where they stopped.

A sweep is a TOML file: ``base``, the configuration they share, and a table ``[vary]`` whose keys
are keys of it and whose values are lists; every combination is a run. Where several keys change
together, the list has tables of them, each with a ``name``::

    base = "tiny-cpu.toml"
    [set]                       # may be left out: the same in all runs
    "workload.steps" = 40
    [vary]
    schedule = [
        { name = "areal", "scheduler.class" = "areal", "limits.eta" = 2 },
        { name = "synchronous", "scheduler.class" = "synchronous", "limits.eta" = 0 },
    ]
    "real.seed" = [1, 2, 3]

``results.jsonl`` in the sweep's folder has one small line per finished run: what figures and tables
need of it.
"""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from areal_real.config import RealConfig, config_sha256, load_config
from areal_real.rows import read_rows, write_rows
from areal_sched.config.options import toml_value
from areal_sched.errors import ConfigError, nearest

RESULTS = "results.jsonl"


@dataclass(frozen=True, slots=True)
class SweepRun:
    """One run of a sweep: its name, which is its folder's too, and what it varies."""

    name: str
    settings: Mapping[str, Any]
    config: RealConfig


def read_sweep(path: Path) -> list[SweepRun]:
    """Read a sweep's file.

    Returns:
        Its runs; the key named last varies fastest.

    Raises:
        ConfigError: the file is no sweep, or a combination is no configuration.
    """
    try:
        document = tomllib.loads(path.read_text())
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror or exc}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: {exc}") from None
    known = ("base", "set", "vary")
    for key in sorted(document.keys() - set(known)):
        raise ConfigError(f"{path}: {key}: no such key{nearest(key, known)}")
    base, vary, common = document.get("base"), document.get("vary"), document.get("set", {})
    if not isinstance(common, dict):
        raise ConfigError(f"{path}: set = {toml_value(common)}: expected a table")
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base = {toml_value(base)}: expected a path in quotes")
    if not isinstance(vary, dict) or not vary:
        raise ConfigError(f"{path}: [vary]: expected keys of the configuration, each with a list")
    for key, values in vary.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(
                f"{path}: vary.{toml_value(key)} = {toml_value(values)}: expected a list"
            )
    runs = []
    for values in itertools.product(*vary.values()):
        settings = dict(zip(vary, values, strict=True))
        overrides = [f"{key}={toml_value(value)}" for key, value in common.items()]
        overrides += [
            f"{key}={toml_value(value)}"
            for name, choice in settings.items()
            for key, value in _keys_of(path, name, choice).items()
        ]
        plain = {key: _name_of(value) for key, value in settings.items()}
        name = ",".join(f"{key.rpartition('.')[2]}={value}" for key, value in plain.items())
        runs.append(SweepRun(name, plain, load_config(path.parent / base, overrides)))
    return runs


def _keys_of(path: Path, name: str, choice: object) -> dict[str, Any]:
    """The keys that a choice sets."""
    if not isinstance(choice, dict):
        return {name: choice}
    if not isinstance(choice.get("name"), str):
        raise ConfigError(f"{path}: vary.{name} = {toml_value(choice)}: a table needs a name")
    return {key: value for key, value in choice.items() if key != "name"}


def _name_of(choice: Any) -> Any:
    return choice["name"] if isinstance(choice, dict) else choice


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
