"""What a key of a configuration is: its type, unit, range and meaning, all in one place.

A section of the TOML file is a frozen dataclass on `Section`, and every field is made by one of the
functions here. Reading, checking, writing and the reference page all go by these descriptions.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any, ClassVar, Literal

from areal_sched.errors import ConfigError

Kind = Literal["whole", "number", "flag", "text", "texts", "choice", "path"]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One key.

    Attributes:
        kind: ``whole``: int; ``number``: float; ``flag``: bool; ``text`` and ``choice``: str;
            ``texts``: tuple of str, a list in the file; ``path``: Path.
        text: what it means.
        unit: empty for counts and names.
        least: smallest value.
        above: every value is greater.
        most: largest value.
        below: every value is smaller.
        infinite: a number may be ``inf``.
        unbounded: a whole number or number may be ``inf``, which becomes None.
        choices: all values of a choice.
        optional: None means "not set".
        otherwise: in words, what holds where it is not set.
        must_exist: a path has to be there when the configuration is read.
    """

    kind: Kind
    text: str
    unit: str = ""
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    infinite: bool = False
    unbounded: bool = False
    choices: tuple[str, ...] = ()
    optional: bool = False
    otherwise: str = ""
    must_exist: bool = True

    @property
    def expected(self) -> str:
        """The values it takes, in words."""
        if self.kind == "choice":
            return "one of " + ", ".join(f'"{choice}"' for choice in self.choices)
        names = {
            "flag": "true or false",
            "text": "a string",
            "texts": "a list of strings",
            "path": "a path in quotes",
        }
        if self.kind in names:
            return names[self.kind]
        limits = [
            f"{sign} {limit:,g}".replace(",", "_") if abs(limit) < 1e6 else f"{sign} {limit:g}"
            for sign, limit in (
                *((">=", self.least), (">", self.above)),
                *(("<=", self.most), ("<", self.below)),
            )
            if limit is not None
        ]
        name = "a number" if self.kind == "number" else "a whole number"
        infinite = " or inf" if self.unbounded or self.infinite else ""
        return f"{name} {' and '.join(limits)}".rstrip() + infinite

    def checked(self, value: Any) -> Any:
        """The value in the field's type.

        Raises:
            ValueError: it has the wrong type or is out of range.
        """
        if value is None and (self.optional or self.unbounded):
            return None
        if self.kind == "path":
            if isinstance(value, str | Path) and str(value):
                return Path(value)
        elif self.kind == "flag":
            if isinstance(value, bool):
                return value
        elif self.kind == "text":
            if isinstance(value, str):
                return value
        elif self.kind == "texts":
            if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
                return tuple(value)
        elif self.kind == "choice":
            if isinstance(value, str) and value in self.choices:
                return value
        elif not isinstance(value, bool) and self._in_range(value):
            return float(value) if self.kind == "number" else value
        elif self.unbounded and value in ("inf", math.inf):
            return None
        raise ValueError(f"expected {self.expected}")

    def _in_range(self, value: Any) -> bool:
        if not isinstance(value, int | float if self.kind == "number" else int):
            return False
        if math.isnan(value) or (math.isinf(value) and not (self.infinite and value > 0)):
            return False
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )


def _field(default: Any, option: Option, key: str | None = None) -> Any:
    return dataclasses.field(default=default, metadata={"option": option, "key": key})


def whole(text: str, default: Any = MISSING, *, least: int = 1, **more: Any) -> Any:
    """A field for a whole number."""
    return _field(default, Option(kind="whole", text=text, least=least, **more))


def number(text: str, default: Any = MISSING, **more: Any) -> Any:
    """A field for a number."""
    return _field(default, Option(kind="number", text=text, **more))


def flag(text: str, default: Any = MISSING, **more: Any) -> Any:
    """A field for true or false."""
    return _field(default, Option(kind="flag", text=text, **more))


def string(text: str, default: Any = MISSING, *, key: str | None = None, **more: Any) -> Any:
    """A field for a text; `key` is its name in the file where Python reserves that word."""
    return _field(default, Option(kind="text", text=text, **more), key)


def strings(text: str, default: Any = (), **more: Any) -> Any:
    """A field for a list of texts, empty by default."""
    return _field(default, Option(kind="texts", text=text, **more))


def choice(text: str, choices: Sequence[str], default: Any = MISSING, **more: Any) -> Any:
    """A field for one of several words."""
    return _field(default, Option(kind="choice", text=text, choices=tuple(choices), **more))


def path(text: str, **more: Any) -> Any:
    """A field for the path of a file or folder, not set by default."""
    return _field(None, Option(kind="path", text=text, optional=True, **more))


def table(cls: type[Section], *, key: str | None = None, optional: bool = False) -> Any:
    """A field for a table inside this one; `optional` ones are None where not written."""
    metadata = {"table": cls, "key": key, "optional": optional}
    if optional:
        return dataclasses.field(default=None, metadata=metadata)
    if any(f.default is MISSING and f.default_factory is MISSING for f in _fields(cls)):
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default_factory=cls, metadata=metadata)


def _fields(cls: type[Section]) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(cls)  # type: ignore[arg-type]


def options_of(cls: type[Section]) -> Iterator[tuple[str, dataclasses.Field[Any], Option]]:
    """(key, field, option) of every key of a table, in order."""
    for field in _fields(cls):
        if "option" in field.metadata:
            yield field.metadata["key"] or field.name, field, field.metadata["option"]


def tables_of(cls: type[Section]) -> Iterator[tuple[str, dataclasses.Field[Any], type[Section]]]:
    """(key, field, dataclass) of every table inside a table, in order."""
    for field in _fields(cls):
        if "table" in field.metadata:
            yield field.metadata["key"] or field.name, field, field.metadata["table"]


class Section:
    """A table of the configuration: values are converted and checked as it is made.

    Attributes:
        TABLE: where it stands in the file, as ``sim.server``; empty for the whole file.
        ELSEWHERE: keys of this table that only the other world reads; they are passed over.
        NOTE: what the reference page says below the keys, whole lines.

    Raises:
        ConfigError: a value is of the wrong type or out of range, or two do not go together. The
            message begins with the key.
    """

    __slots__ = ()
    TABLE: ClassVar[str] = ""
    ELSEWHERE: ClassVar[frozenset[str]] = frozenset()
    NOTE: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Convert and check each value, then how they go together."""
        for key, field, option in options_of(type(self)):
            value = getattr(self, field.name)
            try:
                self._put(field.name, option.checked(value))
            except ValueError as error:
                raise ConfigError(f"{self._at(key)} = {toml_value(value)}: {error}") from None
        self._check()

    @classmethod
    def further_keys(cls) -> tuple[str, ...] | None:
        """Keys this table takes beside its fields; None takes any."""
        return ()

    @classmethod
    def from_further(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that hold further keys, made from what the file says."""
        return {}

    def further(self) -> Iterable[tuple[str, Any]]:
        """The further keys and their values, in a fixed order."""
        return ()

    @classmethod
    def further_rows(cls) -> Iterable[tuple[str, str, str, str, str]]:
        """Of further keys, for the reference page: key, type, unit, default, meaning."""
        return ()

    def _check(self) -> None:
        """What holds between the values of this section; may fill in dependent defaults."""

    def _put(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _at(self, key: str) -> str:
        return f"{self.TABLE}.{key}" if self.TABLE else key


def dotted(keys: Sequence[str]) -> str:
    """A key path as TOML writes it."""
    return ".".join(key if _BARE_KEY.fullmatch(key) else toml_value(key) for key in keys)


def toml_value(value: object) -> str:
    """A value as TOML writes it; what TOML does not know, as Python does."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        # repr of a float is the shortest text that reads back as the same float.
        return repr(value)
    if isinstance(value, str | Path):
        # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
        return json.dumps(os.fspath(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, dict):
        inner = ", ".join(f"{dotted([key])} = {toml_value(item)}" for key, item in value.items())
        return "{" + (f" {inner} " if inner else "") + "}"
    return str(value)
