"""The part of the reference page on real runs, made from the descriptions of the keys."""

from __future__ import annotations

from areal_real.config.run import BackendConfig
from areal_real.config.tables import ClusterConfig, WorkloadConfig
from areal_sched.config.options import Section, options_of
from areal_sched.config.reference import default_of, reference_tables

_HEAD = """\

## Real runs

`areal-real` reads the same files. Of the tables that both worlds share it reads all of `[limits]`
and `[scheduler]`, and of these:

{keys}

Their other keys are for simulations and passed over, as are `[model]`, `[sim]` and `[published]`.
Files and folders under `[real]` need not be there to read a configuration; `areal-real check` says
which are missing.
"""


def reference_page() -> str:
    """What only real runs read, in Markdown: the page's second part."""
    keys = "\n".join(_line(cls) for cls in (ClusterConfig, WorkloadConfig))
    return _HEAD.format(keys=keys) + reference_tables(BackendConfig)


def _line(cls: type[Section]) -> str:
    keys = [f"`{key}` ({default_of(field, option)})" for key, field, option in options_of(cls)]
    return f"- `[{cls.TABLE}]`, with defaults: {', '.join(keys)}"
