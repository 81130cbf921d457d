"""The configuration that simulated and real runs have in common.

One TOML file describes a run. A table of it is a frozen dataclass whose fields carry what they
mean, their unit and their range (`areal_sched.config.options`); reading, ``--set``, writing, the
hash and the reference page all go by these descriptions. `areal_sched.config.sections` has the
tables that both worlds read; each world adds its own and makes a `Format` of them.
"""

from areal_sched.config.options import Section
from areal_sched.config.overrides import Rules
from areal_sched.config.read import Format
from areal_sched.config.reference import reference_tables
from areal_sched.config.sections import BatchKeys, LimitsConfig, SchedulerConfig
from areal_sched.config.write import config_sha256, resolved_toml

__all__ = [
    "BatchKeys",
    "Format",
    "LimitsConfig",
    "Rules",
    "SchedulerConfig",
    "Section",
    "config_sha256",
    "reference_tables",
    "resolved_toml",
]
