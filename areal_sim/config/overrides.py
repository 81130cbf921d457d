"""``--set key.path=value``: changing a configuration from the command line.

The value is read as TOML, and as a string where it is none. Some keys exclude each other; setting
one drops what the file says for the others:

- ``cluster.generation_share`` and ``cluster.colocated = true``
- ``model.name`` and ``model.config``
- ``workload.preset``, ``workload.trace`` (with its format and resampling) and ``workload.length``
- ``constant`` and the parameters of a distribution, in both tables of lengths

Another ``scheduler.class`` drops the file's scheduler options, which belong to the old one; another
``sim.cost.provider`` drops its file and, where all times come from a file, the factors.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Sequence
from typing import Any

from areal_sched.errors import ConfigError
from areal_sim.config.options import options_of
from areal_sim.config.shared import SchedulerConfig
from areal_sim.config.simulation import CostConfig
from areal_sim.config.workload import LengthConfig, PromptLengthConfig

KeyPath = tuple[str, ...]

_KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """One ``--set``.

    Attributes:
        text: as given.
        path: the key, split at its dots.
        value: what it is set to.
    """

    text: str
    path: KeyPath
    value: Any


def parse_override(text: str) -> Override:
    """Read ``key.path=value``.

    Raises:
        ConfigError: it is not of that form.
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not _KEY.fullmatch(key):
        raise ConfigError(f"--set {text}: expected key=value, as in --set limits.eta=4")
    path = tuple(key.split("."))
    if path[0] == "real":
        raise ConfigError(f"--set {text}: [real] is for areal-real, a simulation does not read it")
    return Override(text=text, path=path, value=_value(value))


def _value(text: str) -> Any:
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # A text with a line break could hold more keys than one.
    return document["value"] if document.keys() == {"value"} else text


def apply(document: dict[str, Any], overrides: Sequence[Override]) -> None:
    """Change a document, in the given order.

    Raises:
        ConfigError: a key lies inside something that is not a table.
    """
    _forget_former_owners(document, overrides)
    for override in overrides:
        for rival in _rivals(override):
            _remove(document, rival)
        inner = document
        for depth, key in enumerate(override.path[:-1], start=1):
            inner = inner.setdefault(key, {})
            if not isinstance(inner, dict):
                where = ".".join(override.path[:depth])
                raise ConfigError(f"--set {override.text}: {where} is not a table")
        inner[override.path[-1]] = override.value


def _keys(where: str, *names: str) -> list[KeyPath]:
    return [(*where.split("."), name) for name in names]


def _distribution(cls: type[LengthConfig] | type[PromptLengthConfig]) -> list[KeyPath]:
    return _keys(cls.TABLE, *(key for key, _, _ in options_of(cls) if key != "constant"))


_ALTERNATIVES: list[list[list[KeyPath]]] = [
    [_keys("cluster", "generation_share"), _keys("cluster", "colocated")],
    [_keys("model", "name"), _keys("model", "config")],
    [_keys("workload", "preset"), _keys("workload", "trace"), _keys("workload", "length")],
    [_keys("workload.length", "constant"), _distribution(LengthConfig)],
    [_keys("workload.prompt_length", "constant"), _distribution(PromptLengthConfig)],
]
"""Groups of alternatives, each a list of keys: at most one of a group may be set."""

_DEPENDENTS: dict[KeyPath, list[KeyPath]] = {
    ("workload", "trace"): _keys("workload", "trace_format", "resample")
}
"""What goes when a key goes."""


def _rivals(override: Override) -> list[KeyPath]:
    """The keys that cannot stay beside this one."""
    if override.path == ("cluster", "colocated") and override.value is False:
        return []
    found: list[KeyPath] = []
    for group in _ALTERNATIVES:
        for mine in group:
            if any(override.path[: len(key)] == key for key in mine):
                found += [key for other in group if other is not mine for key in other]
    return found + [key for rival in found for key in _DEPENDENTS.get(rival, [])]


def _remove(document: dict[str, Any], path: KeyPath) -> None:
    inner: Any = document
    for key in path[:-1]:
        inner = inner.get(key)
        if not isinstance(inner, dict):
            return
    inner.pop(path[-1], None)


def _forget_former_owners(document: dict[str, Any], overrides: Sequence[Override]) -> None:
    """Drop what the file says for a scheduler or cost provider that is replaced."""
    given: dict[KeyPath, Any] = {override.path: override.value for override in overrides}
    scheduler, cost = document.get("scheduler"), document.get("sim", {})
    cost = cost.get("cost") if isinstance(cost, dict) else None
    if isinstance(scheduler, dict):
        new = given.get(("scheduler", "class"))
        if new is not None and new != scheduler.get("class", _default(SchedulerConfig)):
            document["scheduler"] = {}
    if isinstance(cost, dict):
        new = given.get(("sim", "cost", "provider"))
        if new is not None and new != cost.get("provider", _default(CostConfig)):
            kept = () if new == "fitted" else CostConfig.further_keys()
            document["sim"]["cost"] = {key: cost[key] for key in cost if key in kept}


def _default(cls: type[SchedulerConfig] | type[CostConfig]) -> Any:
    """Default of the first key: the class, the provider."""
    return next(options_of(cls))[1].default
