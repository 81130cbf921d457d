"""Where keys stand: the scanner finds what the standard parser finds, at the right place."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from areal_sched.config.options import dotted, toml_value
from areal_sched.config.positions import key_positions

KEYS = st.one_of(
    st.text("ab-_1", min_size=1, max_size=4),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
)
SCALARS = st.one_of(
    st.integers(),
    st.floats(allow_nan=False),
    st.booleans(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(["]", "}", "#", "=", "[a]", "'", '"', '"""', "\\", "x = 1"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=5)


def paths(table: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in table.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from paths(value, (*path, key))


def write(table: dict[str, Any], path: tuple[str, ...], draw: st.DataObject) -> str:
    """TOML in one of the many ways to write it: headers, dotted keys, inline tables, blanks."""
    lines, tables = [], []
    for key, value in table.items():
        blank = draw.draw(st.sampled_from(["", " ", "\t", "# [x]\n", "\n"]))
        written = dotted([key])
        if isinstance(value, dict) and draw.draw(st.booleans()):
            header = f"{blank}[ {dotted((*path, key))} ] # = '''"
            tables.append(f"{header}\n{write(value, (*path, key), draw)}")
        elif isinstance(value, dict) and value and draw.draw(st.booleans()):
            # Dotted keys, one line each.
            for inner, leaf in value.items():
                lines.append(f"{blank}{written} . {dotted([inner])}={toml_value(leaf)}")
        elif isinstance(value, list):
            spread = "".join(f"\n  {toml_value(item)}, # ]\n" for item in value)
            lines.append(f"{blank}{written} = [{spread}]")
        else:
            lines.append(f"{blank}{written}={toml_value(value)} # {{")
    return "\n".join([*lines, *tables, ""])


@given(DOCUMENTS, st.data())
def test_every_key_is_found_where_it_stands(document: dict[str, Any], data: st.DataObject) -> None:
    text = write(document, (), data)
    assert tomllib.loads(text) == document
    found = key_positions(text)
    assert found.keys() == set(paths(document))
    lines = text.split("\n")
    for path, (line, column) in found.items():
        assert lines[line - 1][column - 1 :].startswith(dotted([path[-1]]))


STRINGS = '''\
a = """x = 1
y = ""
z""" # not b = 2
b = \'\'\'c = 3
'' d\'\'\'
e.f = """a"""""
g = 1979-05-27 07:32:00
h = [1, # [x]
  {i = 1, j = "]"}]
"k l" = 'm = "'
[[n]]
o = 1
[[n]]
p = {q = 1, "r.s" = {t = []}}
'''


def test_strings_dates_and_arrays_of_tables() -> None:
    tomllib.loads(STRINGS)
    assert key_positions(STRINGS) == {
        ("a",): (1, 1),
        ("b",): (4, 1),
        ("e",): (6, 1),
        ("e", "f"): (6, 3),
        ("g",): (7, 1),
        ("h",): (8, 1),
        ("k l",): (10, 1),
        ("n",): (11, 3),
        ("n", "o"): (12, 1),
        ("n", "p"): (14, 1),
        ("n", "p", "q"): (14, 6),
        ("n", "p", "r.s"): (14, 13),
        ("n", "p", "r.s", "t"): (14, 22),
    }


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends(end: str) -> None:
    assert key_positions(end.join(["[a]", "b = 1", "", " c = 2"])) == {
        ("a",): (1, 2),
        ("a", "b"): (2, 1),
        ("a", "c"): (4, 2),
    }
