"""The reference page of a configuration, made from the descriptions of its keys."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from dataclasses import MISSING
from typing import Any

from areal_sched.config.options import Option, Section, options_of, tables_of, toml_value


def reference_tables(cls: type[Section]) -> str:
    """A heading and a list of keys, in Markdown, for a table and every table inside it."""
    return "".join(_tables(cls))


def default_of(field: dataclasses.Field[Any], option: Option) -> str:
    """The default of a key, in Markdown."""
    if field.default is MISSING:
        return "**required**"
    if field.default is None and option.unbounded:
        return "`inf`"
    if field.default is None:
        return option.otherwise or "not set"
    return f"`{toml_value(field.default)}`"


def _tables(cls: type[Section]) -> Iterator[str]:
    if cls.TABLE:
        yield f"\n## `[{cls.TABLE}]`\n\n{inspect.getdoc(cls)}\n"
        rows = [
            (key, _type(option), option.unit, default_of(field, option), option.text)
            for key, field, option in options_of(cls)
        ]
        yield "\n| key | type | unit | default | meaning |\n|---|---|---|---|---|\n"
        for key, *cells in (*rows, *cls.further_rows()):
            yield f"| `{key}` | {' | '.join(_cell(cell) for cell in cells)} |\n"
        if cls.NOTE:
            yield f"\n{cls.NOTE}"
    for _, _, inner in tables_of(cls):
        yield from _tables(inner)


def _type(option: Option) -> str:
    return option.expected.replace('"', "`")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
