"""The reference page of the configuration, made from the descriptions of the keys."""

from __future__ import annotations

from areal_sched.config.reference import reference_tables
from areal_sim.config.run import RunConfig

_HEAD = """\
# Configuration

One TOML file describes one run. `[cluster]`, `[workload]`, `[limits]` and `[scheduler]` are for
simulated and real runs. `[model]`, `[sim]` and `[published]` are only for simulated ones; real runs
pass over them, as simulated ones pass over [`[real]`](#real-runs). Unknown keys are errors. Paths
are relative to the file. `--set key.path=value` changes a key from the command line, for example

    areal-sim run configs/paper/7b-areal.toml --set limits.eta=inf --set workload.steps=20

There the value is TOML, or a string where it is none, and a path is relative to the current folder.
Of keys that exclude each other the one that is set wins: `cluster.generation_share` and
`cluster.colocated`; `model.name` and `model.config`; `workload.preset`, `workload.trace` and
`[workload.length]`; `constant` and the parameters of a distribution. Another `scheduler.class`
drops the file's options of the old one, another `sim.cost.provider` its file, another
`real.task.name` its task's keys.

The configuration with all defaults written out is kept beside the journal of a run, and its hash in
the journal.

This page is made from the code:

    (python -m areal_sim.config; python -m areal_real.config) > docs/reference/configuration.md
"""


def reference_page() -> str:
    """What simulations read and what both worlds share, in Markdown: the page's first part."""
    return _HEAD + reference_tables(RunConfig)
