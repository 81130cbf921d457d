"""Sweeps: many configurations that differ in a few keys, from one TOML file.

``base`` is the configuration they share, and every key of the table ``[vary]`` is a key of it with
a list of values; every combination is a run. Where several keys change together, the list has
tables of them, each with a ``name``::

    base = "tiny-cpu.toml"
    [set]                       # may be left out: the same in all runs
    "workload.steps" = 40
    [vary]
    schedule = [
        { name = "areal", "scheduler.class" = "areal", "limits.eta" = 2 },
        { name = "synchronous", "scheduler.class" = "synchronous", "limits.eta" = 0 },
    ]
    "sim.seed" = [1, 2, 3]
"""

from __future__ import annotations

import dataclasses
import itertools
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from areal_sched.config.options import toml_value
from areal_sched.errors import ConfigError, nearest

ConfigT = TypeVar("ConfigT")

Load = Callable[[Path, Sequence[str]], ConfigT]
"""Reads a configuration's file, changed by ``--set``."""


@dataclasses.dataclass(frozen=True, slots=True)
class SweepRun(Generic[ConfigT]):
    """One run of a sweep: its name, what it varies, and its configuration."""

    name: str
    settings: Mapping[str, Any]
    config: ConfigT


def is_sweep(path: Path) -> bool:
    """Whether a file is a sweep's, and not a configuration."""
    return "vary" in _document(path)


def read_sweep(path: Path, load: Load[ConfigT]) -> list[SweepRun[ConfigT]]:
    """Read a sweep's file.

    Args:
        path: the file; ``base`` is relative to its folder.
        load: reads a configuration.

    Returns:
        Its runs; the key named last varies fastest.

    Raises:
        ConfigError: the file is no sweep, or a combination is no configuration.
    """
    document = _document(path)
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
    fixed = [f"{key}={toml_value(value)}" for key, value in common.items()]
    return combinations(vary, lambda changes: load(path.parent / base, [*fixed, *changes]), path)


def combinations(
    vary: Mapping[str, Sequence[Any]],
    load: Callable[[Sequence[str]], ConfigT],
    where: object,
) -> list[SweepRun[ConfigT]]:
    """Every combination of some values.

    Args:
        vary: values by key; see the module.
        load: gives a configuration with some changes.
        where: what messages begin with.

    Raises:
        ConfigError: as `read_sweep`.
    """
    runs = []
    for values in itertools.product(*vary.values()):
        settings = dict(zip(vary, values, strict=True))
        changes = [
            f"{key}={toml_value(value)}"
            for name, choice in settings.items()
            for key, value in _keys_of(where, name, choice).items()
        ]
        plain = {key: _name_of(value) for key, value in settings.items()}
        name = ",".join(f"{key.rpartition('.')[2]}={value}" for key, value in plain.items())
        runs.append(SweepRun(name, plain, load(changes)))
    return runs


def _document(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror or exc}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: {exc}") from None


def _keys_of(where: object, name: str, choice: object) -> dict[str, Any]:
    """The keys that a choice sets."""
    if not isinstance(choice, dict):
        return {name: choice}
    if not isinstance(choice.get("name"), str):
        raise ConfigError(f"{where}: vary.{name} = {toml_value(choice)}: a table needs a name")
    return {key: value for key, value in choice.items() if key != "name"}


def _name_of(choice: Any) -> Any:
    return choice["name"] if isinstance(choice, dict) else choice
