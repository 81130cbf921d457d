"""``--set key.path=value``: changing a configuration from the command line.

The value is read as TOML, and as a string where it is none. Some keys exclude each other, and some
belong to the value of another key; setting one drops what the file says for those (`Rules`).
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from areal_sched.errors import ConfigError

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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A key whose value owns the rest of its table: another value drops what the file says there.

    Attributes:
        table: the table it lies in.
        key: its name.
        default: its value where the file does not give one.
        kept: given the new value, the keys of the table that stay.
    """

    table: KeyPath
    key: str
    default: Any
    kept: Callable[[Any], Collection[str]] = lambda new: ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What an override drops.

    Attributes:
        alternatives: groups of alternatives, each a list of keys: at most one of a group is set.
        dependents: what goes when a key goes.
        owners: keys that own their table.
        harmless: keys with a value that excludes nothing.
    """

    alternatives: Sequence[Sequence[Sequence[KeyPath]]] = ()
    dependents: Mapping[KeyPath, Sequence[KeyPath]] = dataclasses.field(default_factory=dict)
    owners: Sequence[Owner] = ()
    harmless: Collection[tuple[KeyPath, Any]] = ()

    def rivals(self, override: Override) -> list[KeyPath]:
        """The keys that cannot stay beside this one."""
        if (override.path, override.value) in self.harmless:
            return []
        found: list[KeyPath] = []
        for group in self.alternatives:
            for mine in group:
                if any(override.path[: len(key)] == key for key in mine):
                    found += [key for other in group if other is not mine for key in other]
        return found + [key for rival in found for key in self.dependents.get(rival, [])]


def keys(where: str, *names: str) -> list[KeyPath]:
    """The paths of some keys of a table."""
    return [(*where.split("."), name) for name in names]


def add_overrides(parser: argparse.ArgumentParser, *, example: str) -> None:
    """Declare ``--set`` on a command line; what is given becomes ``overrides``, a list of texts."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help=f"override a key, as {example}; may be repeated",
    )


def parse_override(text: str) -> Override:
    """Read ``key.path=value``.

    Raises:
        ConfigError: it is not of that form.
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not _KEY.fullmatch(key):
        raise ConfigError(f"--set {text}: expected key=value, as in --set limits.eta=4")
    return Override(text=text, path=tuple(key.split(".")), value=_value(value))


def _value(text: str) -> Any:
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # A text with a line break could hold more keys than one.
    return document["value"] if document.keys() == {"value"} else text


def apply(document: dict[str, Any], overrides: Sequence[Override], rules: Rules) -> None:
    """Change a document, in the given order.

    Raises:
        ConfigError: a key lies inside something that is not a table.
    """
    _forget_former_owners(document, overrides, rules.owners)
    for override in overrides:
        for rival in rules.rivals(override):
            _remove(document, rival)
        inner = document
        for depth, key in enumerate(override.path[:-1], start=1):
            inner = inner.setdefault(key, {})
            if not isinstance(inner, dict):
                where = ".".join(override.path[:depth])
                raise ConfigError(f"--set {override.text}: {where} is not a table")
        inner[override.path[-1]] = override.value


def _table(document: dict[str, Any], path: KeyPath) -> dict[str, Any] | None:
    """The table at a path, if there is one."""
    inner: Any = document
    for key in path:
        inner = inner.get(key)
        if not isinstance(inner, dict):
            return None
    return inner  # type: ignore[no-any-return]


def _remove(document: dict[str, Any], path: KeyPath) -> None:
    table = _table(document, path[:-1])
    if table is not None:
        table.pop(path[-1], None)


def _forget_former_owners(
    document: dict[str, Any], overrides: Sequence[Override], owners: Sequence[Owner]
) -> None:
    """Drop what the file says for an owner that is replaced."""
    given: dict[KeyPath, Any] = {override.path: override.value for override in overrides}
    for owner in owners:
        table = _table(document, owner.table)
        new = given.get((*owner.table, owner.key))
        if table is None or new is None or new == table.get(owner.key, owner.default):
            continue
        kept = owner.kept(new)
        for key in [key for key in table if key not in kept]:
            del table[key]
