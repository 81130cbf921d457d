"""Writing a configuration: every key with its value, in a fixed order, and the hash of that."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from areal_sim.config.options import Section, dotted, options_of, tables_of, toml_value
from areal_sim.config.run import RunConfig


def resolved_toml(config: RunConfig) -> str:
    """The whole configuration as TOML.

    Defaults are written out, so it says the same after defaults have changed; a key that is not
    set is a comment. `load_config` of it gives the same `RunConfig`. Paths are absolute.
    """
    return "\n".join(_section(config, toml_value))


def config_sha256(config: RunConfig) -> str:
    """SHA-256 of `resolved_toml`, where a file counts by its name and content, not by its folder.

    So the same configuration has the same hash on every machine.

    Raises:
        OSError: a file that the configuration names cannot be read.
    """
    text = "\n".join(_section(config, _content))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _content(file: Path) -> str:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return toml_value(f"{file.name} sha256:{digest}")


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
