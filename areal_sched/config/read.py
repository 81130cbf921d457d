"""Reading a configuration: TOML, changed by ``--set``, into sections, with located errors."""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any, Generic, TypeVar

from areal_sched.config import overrides as sets
from areal_sched.config.options import Section, dotted, options_of, tables_of, toml_value
from areal_sched.config.positions import key_positions
from areal_sched.errors import ConfigError, nearest

RootT = TypeVar("RootT", bound=Section)
SectionT = TypeVar("SectionT", bound=Section)

_LEADING_KEY = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Format(Generic[RootT]):
    """What one of the two commands reads.

    Attributes:
        root: the whole file. A key in `Section.ELSEWHERE` of a table is passed over.
        rules: what an override drops.
        reader: who reads it, in a message: "a simulation".
        other: the command that reads what is passed over.
        own: tables of which a file for this reader has at least one.
        own_needed: whether a file without them is for the other command in any case.
    """

    root: type[RootT]
    rules: sets.Rules
    reader: str
    other: str
    own: tuple[str, ...] = ()
    own_needed: bool = False

    def load(self, path: str | Path, overrides: Sequence[str] = ()) -> RootT:
        """Read a configuration.

        Args:
            path: the TOML file; paths in it are relative to its folder.
            overrides: ``key.path=value`` each, see `areal_sched.config.overrides`; paths in them
                are relative to the current folder.

        Raises:
            ConfigError: the file cannot be read, or something in it or in the overrides is wrong.
                One line that names the file with line and column, or the override; the key, the
                value, and what would be right.
        """
        path = Path(path)
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            column = error.start - error.object.rfind(b"\n", 0, error.start)
            raise ConfigError(f"{path}:{line}:{column}: not UTF-8: {error.reason}") from None
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
        return self.parse(text, overrides, name=str(path), folder=path.parent)

    def parse(
        self,
        text: str,
        overrides: Sequence[str] = (),
        *,
        name: str = "config",
        folder: str | Path = ".",
    ) -> RootT:
        """Read a configuration's text; see `load`.

        Args:
            text: TOML.
            overrides: as of `load`.
            name: what messages call it.
            folder: what paths in it are relative to.

        Raises:
            ConfigError: as `load`.
        """
        document = _document(text, name)
        changes = [sets.parse_override(override) for override in overrides]
        for change in changes:
            self._check_world(change)
        sets.apply(document, changes, self.rules)
        changed: dict[tuple[str, ...], str] = {}
        for change in changes:
            for path in _paths(change.path, change.value):
                changed[path] = change.text
        reader = _Reader({path: Path.cwd() for path in changed}, Path(folder))
        hint = ""
        try:
            self._check_keys(self.root, document, ())
            hint = self._other_world(document)
            return reader.section(self.root, document, ())
        except ConfigError as error:
            message = f"{error}{hint}"
        raise ConfigError(_located(message, name, text, changed))

    def _other_world(self, document: Mapping[str, Any]) -> str:
        """What to say of a file that looks as if it were for the other command alone."""
        theirs = [key for key in document if key in self.root.ELSEWHERE]
        ours = [key for key in self.own if key in document]
        known = {key for key, _, _ in tables_of(self.root)}
        if ours or not (theirs or (self.own_needed and known & document.keys())):
            return ""
        missing = " or ".join(f"[{key}]" for key in self.own)
        return f" (the file has no {missing}: {self.other} reads it, {self.reader} needs more)"

    def _check_world(self, override: sets.Override) -> None:
        """Refuse to set what is passed over: it would have no effect."""
        cls: type[Section] = self.root
        for depth, key in enumerate(override.path):
            if key in cls.ELSEWHERE:
                what = f"[{key}]" if depth == 0 else dotted(override.path[: depth + 1])
                raise ConfigError(
                    f"--set {override.text}: {what} is for {self.other}, {self.reader} does not"
                    " read it"
                )
            inner = {name: of for name, _, of in tables_of(cls)}
            if key not in inner:
                return
            cls = inner[key]

    def _check_keys(
        self, cls: type[Section], table: Mapping[str, Any], path: tuple[str, ...]
    ) -> None:
        """Check that a table and the tables in it have no unknown keys.

        This comes before all else: a mistyped key would otherwise be reported as a missing one.
        """
        options = [key for key, _, _ in options_of(cls)]
        inner = {key: of for key, _, of in tables_of(cls)}
        further = cls.further_keys()
        for key, value in table.items():
            if key in inner:
                if not isinstance(value, dict):
                    given = f"{dotted((*path, key))} = {toml_value(value)}"
                    raise ConfigError(f"{given}: expected a table")
                self._check_keys(inner[key], value, (*path, key))
            elif further is None or key in options or key in further or key in cls.ELSEWHERE:
                continue
            else:
                known = [*options, *inner, *further]
                raise ConfigError(f"{dotted((*path, key))}: no such key{self._hint(key, known)}")

    def _hint(self, key: str, known: Sequence[str]) -> str:
        """The nearest key of the table, or where else a key of that name stands."""
        elsewhere = [name for name in _all_keys(self.root, ()) if name.endswith(f".{key}")]
        if elsewhere:
            return f" (did you mean {' or '.join(elsewhere)}?)"
        return nearest(key, known)


def _document(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
    place = _TOML_PLACE.search(message)
    line, column = place.groups() if place else (None, None)
    if line is None:
        lines = text.splitlines() or [""]
        line, column = str(len(lines)), str(len(lines[-1]) + 1)
    raise ConfigError(f"{name}:{line}:{column}: not TOML: {_TOML_PLACE.sub('', message)}")


def _paths(path: tuple[str, ...], value: object) -> Iterator[tuple[str, ...]]:
    """A key and, if it holds a table, the keys in that."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths((*path, key), inner)


def _located(message: str, name: str, text: str, changed: Mapping[tuple[str, ...], str]) -> str:
    """Put the place of the key that a message begins with before the message."""
    found = _LEADING_KEY.match(message)
    path = tuple(found.group().split(".")) if found else ()
    if path in changed:
        return f"--set {changed[path]}: {message}"
    positions = key_positions(text)
    while path and path not in positions:
        path = path[:-1]
    where = f"{name}:{positions[path][0]}:{positions[path][1]}" if path else name
    also = "".join(f" --set {text}" for text in dict.fromkeys(changed.values()))
    return f"{where}: {message}" + (f" (with{also})" if also else "")


class _Reader:
    """Turns tables into sections.

    Args:
        folders: what the paths under a key are relative to, where not to `folder`.
        folder: of the file.
    """

    def __init__(self, folders: Mapping[tuple[str, ...], Path], folder: Path) -> None:
        self._folders = folders
        self._folder = folder

    def section(
        self, cls: type[SectionT], table: Mapping[str, Any], path: tuple[str, ...]
    ) -> SectionT:
        """One table with the tables inside it."""
        options = {key: (field, option) for key, field, option in options_of(cls)}
        inner = {key: (field, of) for key, field, of in tables_of(cls)}
        values: dict[str, Any] = {}
        further: dict[str, Any] = {}
        for key, value in table.items():
            if key in options:
                field, option = options[key]
                values[field.name] = value
                if option.kind == "path" and isinstance(value, str) and value:
                    values[field.name] = self._file(value, (*path, key), option.must_exist)
            elif key not in inner and key not in cls.ELSEWHERE:
                further[key] = value
        for key, (field, option) in options.items():
            if key not in table and field.default is MISSING:
                raise ConfigError(
                    f"{dotted((*path, key))}: missing: {option.text}, {option.expected}"
                )
        for key, (field, of) in inner.items():
            if key in table or not field.metadata["optional"]:
                values[field.name] = self.section(of, table.get(key, {}), (*path, key))
        if further:
            values |= cls.from_further(further)
        return cls(**values)

    def _file(self, value: str, path: tuple[str, ...], must_exist: bool) -> Path:
        folder = self._folders.get(path, self._folder)
        file = Path(os.path.abspath(folder / value))
        if must_exist and not file.exists():
            raise ConfigError(
                f"{dotted(path)} = {toml_value(value)}: no such file, looked for {file}"
            )
        return file


def _all_keys(cls: type[Section], path: tuple[str, ...]) -> Iterator[str]:
    for key, _, _ in options_of(cls):
        yield dotted((*path, key))
    for key in cls.further_keys() or ():
        yield dotted((*path, key))
    for key, _, of in tables_of(cls):
        yield dotted((*path, key))
        yield from _all_keys(of, (*path, key))
