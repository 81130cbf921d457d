"""Reading the configuration of a real run."""

from __future__ import annotations

from areal_real.config.run import RealConfig
from areal_sched.config.overrides import Owner, Rules
from areal_sched.config.read import Format
from areal_sched.config.sections import SCHEDULER_OWNER

_COMMON_TASK_KEYS = ("held_out_problems",)

FORMAT = Format(
    root=RealConfig,
    rules=Rules(
        owners=(
            SCHEDULER_OWNER,
            Owner(
                table=("real", "task"),
                key="name",
                default="arithmetic",
                kept=lambda name: _COMMON_TASK_KEYS,
            ),
        )
    ),
    reader="a real run",
    other="areal-sim",
    own=("real",),
    own_needed=True,
)
"""What `areal-real` reads. Another scheduler or task does not get the options of the old one."""

load_config = FORMAT.load
"""Read a file, changed by ``--set``, into a `RealConfig`: `areal_sched.config.read.Format.load`."""

parse_config = FORMAT.parse
"""Read a text into a `RealConfig`: `areal_sched.config.read.Format.parse`."""
