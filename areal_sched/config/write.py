"""Writing a configuration: every key with its value, in a fixed order, and the hash of that."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from areal_sched.config.options import Section, dotted, options_of, tables_of, toml_value

_LARGE_FILE_BYTES = 16 * 2**20
"""A larger file inside a folder counts by its name and size: reading weights takes minutes."""


def resolved_toml(config: Section) -> str:
    """The whole configuration as TOML.

    Defaults are written out, so it says the same after defaults have changed; a key that is not
    set is a comment. Reading it gives the same configuration. Paths are absolute.
    """
    return "\n".join(_section(config, toml_value))


def config_sha256(config: Section) -> str:
    """SHA-256 of `resolved_toml`, where a file counts by its name and content, not by its folder.

    So the same configuration has the same hash on every machine. A folder counts by the files
    directly in it.

    Raises:
        OSError: a file that the configuration names cannot be read.
    """
    text = "\n".join(_section(config, _content))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def differences(before: Section, now: Section) -> list[str]:
    """Each key in which two configurations differ, by `config_sha256`'s measure, with both values.

    Returns:
        Lines such as ``limits.eta = 4, before 2``; a key that is not set is ``none``.

    Raises:
        OSError: a file that a configuration names cannot be read.
    """
    old, new = _values(before), _values(now)
    keys = [*new, *(key for key in old if key not in new)]
    return [
        f"{key} = {new.get(key, 'none')}, before {old.get(key, 'none')}"
        for key in keys
        if new.get(key) != old.get(key)
    ]


def _values(config: Section) -> dict[str, str]:
    table, found = "", {}
    for line in _section(config, _content):
        key, given, value = line.partition(" = ")
        if line.startswith("["):
            table = line[1:-1] + "."
        elif given and not line.startswith("#"):
            found[table + key] = value
    return found


def _content(path: Path) -> str:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        listing = "\n".join(_digest(file, large=_LARGE_FILE_BYTES) for file in files)
        return toml_value(f"{path.name} sha256:{hashlib.sha256(listing.encode()).hexdigest()}")
    return toml_value(_digest(path))


def _digest(file: Path, *, large: int | None = None) -> str:
    size = file.stat().st_size
    if large is not None and size > large:
        return f"{file.name} bytes:{size}"
    return f"{file.name} sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"


def _section(section: Section, file_value: Callable[[Path], str]) -> Iterator[str]:
    if section.TABLE:
        yield f"[{section.TABLE}]"
        for key, field, option in options_of(type(section)):
            value = getattr(section, field.name)
            if value is None and not option.unbounded:
                yield f"# {key} is not set"
            elif value is None:
                yield f"{key} = inf"
            else:
                yield f"{key} = {file_value(value) if option.kind == 'path' else toml_value(value)}"
        for key, value in section.further():
            yield f"{dotted([key])} = {toml_value(value)}"
        yield ""
    for _, field, _ in tables_of(type(section)):
        inner = getattr(section, field.name)
        if inner is not None:
            yield from _section(inner, file_value)
