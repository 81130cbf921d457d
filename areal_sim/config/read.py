"""Reading a configuration of a simulation."""

from __future__ import annotations

from areal_sched.config.read import Format
from areal_sim.config.overrides import RULES
from areal_sim.config.run import RunConfig

FORMAT = Format(
    root=RunConfig,
    rules=RULES,
    reader="a simulation",
    other="areal-real",
    own=("cluster", "sim"),
)
"""What `areal-sim` reads."""

load_config = FORMAT.load
"""Read a file, changed by ``--set``, into a `RunConfig`: `areal_sched.config.read.Format.load`."""

parse_config = FORMAT.parse
"""Read a text into a `RunConfig`: `areal_sched.config.read.Format.parse`."""
