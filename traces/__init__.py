"""Workloads: tables of rollouts, loaders of public traces, synthetic lengths, resampling, fits.

A workload is either a table (`traces.schema`) or a source that gives the lengths of any group on
demand (`traces.source`). pandas is only imported by what needs tables.
"""

from traces.errors import TraceError
from traces.fit import GroupFit, fit_log_normal_groups, fit_mixture, variance_components
from traces.lengths import (
    LengthModel,
    LogNormalGroups,
    LogNormalPrompts,
    Mixture,
    SyntheticWorkload,
    constant,
    constant_prompts,
)
from traces.loaders import load
from traces.presets import PRESETS, Preset, preset
from traces.resample import ResampledWorkload
from traces.schema import read_workload, validate, write_workload
from traces.source import GroupBatch, WorkloadSource, tabulate

__all__ = [
    "GroupBatch",
    "GroupFit",
    "LengthModel",
    "LogNormalGroups",
    "LogNormalPrompts",
    "Mixture",
    "PRESETS",
    "Preset",
    "ResampledWorkload",
    "SyntheticWorkload",
    "TraceError",
    "WorkloadSource",
    "constant",
    "constant_prompts",
    "fit_log_normal_groups",
    "fit_mixture",
    "load",
    "preset",
    "read_workload",
    "tabulate",
    "validate",
    "variance_components",
    "write_workload",
]
