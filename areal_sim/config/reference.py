"""The reference page of the configuration, made from the descriptions of the keys."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from dataclasses import MISSING

from areal_sim.config.options import Option, Section, options_of, tables_of, toml_value
from areal_sim.config.run import RunConfig
from areal_sim.config.simulation import CostConfig
from areal_sim.costs.constants import Factors

_HEAD = """\
# Configuration

One TOML file describes one run. `[cluster]`, `[model]`, `[workload]`, `[limits]` and `[scheduler]`
are for simulated and real runs, `[sim]` only for simulated ones, which pass over `[real]`.
Unknown keys are errors. Paths are relative to the file. `--set key.path=value` changes a key from
the command line, for example

    areal-sim run configs/paper/7b-areal.toml --set limits.eta=inf --set workload.steps=20

There the value is TOML, or a string where it is none, and a path is relative to the current folder.
Of keys that exclude each other the one that is set wins: `cluster.generation_share` and
`cluster.colocated`; `model.name` and `model.config`; `workload.preset`, `workload.trace` and
`[workload.length]`; `constant` and the parameters of a distribution. Another `scheduler.class`
drops the file's options of the old one, another `sim.cost.provider` its file.

The configuration with all defaults written out is kept beside the journal of a run, and its hash in
the journal.

This page is made from the code: `python -m areal_sim.config > docs/reference/configuration.md`.
"""

_AFTER = {
    "cluster": """\
`round(gpus * generation_share / t) * t` GPUs generate, where `t` is `sim.server.tensor_parallel`;
half a server is rounded up. Of the others the trainer takes the largest multiple of
`sim.trainer.tensor_parallel * sim.trainer.pipeline_parallel`. Colocated, both take the largest
multiple of all GPUs. GPUs left over stay unused, but GPU-hours count all GPUs of the cluster.
""",
    "scheduler": """\
The options of the built-in schedulers are on their [reference pages](areal_sched.schedulers.md).
""",
}


def reference_page() -> str:
    """The page, in Markdown."""
    return _HEAD + "".join(_tables(RunConfig))


def _tables(cls: type[Section]) -> Iterator[str]:
    if cls.TABLE:
        yield f"\n## `[{cls.TABLE}]`\n\n{inspect.getdoc(cls)}\n"
        rows = [
            (key, _type(option), option.unit, _default(field.default, option), option.text)
            for key, field, option in options_of(cls)
        ]
        if cls is CostConfig:
            rows += [_factor(field) for field in dataclasses.fields(Factors)]
        yield "\n| key | type | unit | default | meaning |\n|---|---|---|---|---|\n"
        for key, *cells in rows:
            yield f"| `{key}` | {' | '.join(_cell(cell) for cell in cells)} |\n"
        if cls.TABLE in _AFTER:
            yield f"\n{_AFTER[cls.TABLE]}"
    for _, _, inner in tables_of(cls):
        yield from _tables(inner)


def _type(option: Option) -> str:
    return option.expected.replace('"', "`")


def _default(default: object, option: Option) -> str:
    if default is MISSING:
        return "**required**"
    if default is None and option.unbounded:
        return "`inf`"
    if default is None:
        return option.otherwise or "not set"
    return f"`{toml_value(default)}`"


def _factor(field: dataclasses.Field[float]) -> tuple[str, str, str, str, str]:
    limits = [
        f"{sign} {field.metadata[name]:g}"
        for name, sign in (("above", ">"), ("highest", "<="))
        if name in field.metadata
    ]
    unit = "" if field.metadata["unit"] == "1" else field.metadata["unit"]
    meaning = f"{field.metadata['basis']}: {field.metadata['source']}"
    expected = f"a number {' and '.join(limits) or '>= 0'}"
    return field.name, expected, unit, f"`{toml_value(field.default)}`", meaning


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
