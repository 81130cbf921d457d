"""What the tests of the configuration share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from areal_sched.config.options import Option, Section, options_of, tables_of
from areal_sched.errors import ConfigError
from areal_sim.config import RunConfig, parse_config
from traces.data import sample_path

ROOT = Path(__file__).resolve().parents[2]

SMALL = """\
[cluster]
nodes = 4

[model]
name = "7b"

[workload]
preset = "math-7b-boba"

[limits]
eta = 8
"""


def small(*overrides: str) -> RunConfig:
    return parse_config(SMALL, overrides)


def refused(text: str, *overrides: str, folder: Path | str = ".") -> str:
    """The message of the error that a configuration gives: always one line."""
    with pytest.raises(ConfigError) as caught:
        parse_config(text, overrides, name="a.toml", folder=folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def all_tables(cls: type[Section] = RunConfig) -> Iterator[type[Section]]:
    if cls.TABLE:
        yield cls
    for _, _, inner in tables_of(cls):
        yield from all_tables(inner)


ALL_OPTIONS = [
    pytest.param(cls, key, option, id=f"{cls.TABLE}.{key}")
    for cls in all_tables()
    for key, _, option in options_of(cls)
]


def bad_values(option: Option) -> Iterator[object]:
    if option.kind in ("whole", "number"):
        yield from ("three", True, [1], float("nan"))
        if option.kind == "whole":
            yield 1.5
        yield from (x - 1 for x in (option.least,) if x is not None)
        yield from (x for x in (option.above, option.below) if x is not None)
        yield from (x + 1 for x in (option.most,) if x is not None)
        if not (option.infinite or option.unbounded):
            yield float("inf")
        yield float("-inf")
    elif option.kind == "flag":
        yield from ("False", 1, 0)
    elif option.kind == "choice":
        yield from ("", option.choices[0].upper(), 1)
    else:
        yield from (1, True, 0.5, ["a"])


TRACE = f"workload.trace={sample_path('openrs.csv')}"
LOGNORMAL = [f"workload.length.{key}=0.5" for key in ("mu", "sigma_between", "sigma_within")]
