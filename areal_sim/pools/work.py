"""What a process of a sweep does, wherever it runs."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from areal_sim.config import RunConfig
from areal_sim.pools import Summary, SweepError

_SOURCES = ("areal_sched", "areal_sim", "traces", "analysis")
_KINDS = (".py", ".json", ".csv", ".toml")  # code, and the models and data it has with it


@functools.cache
def source_sha256() -> str:
    """Hash of every file of ours that a simulation's summary may depend on."""
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for package in _SOURCES:
        for file in sorted((root / package).rglob("*")):
            if file.suffix not in _KINDS or not file.is_file():
                continue
            digest.update(f"{file.relative_to(root)}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def simulate_task(config: RunConfig, name: str) -> Summary:
    """Simulate one configuration of a sweep.

    Raises:
        ConfigError: it cannot be simulated.
        SweepError: the process was interrupted.
    """
    from areal_sim.rundir import simulate

    outcome = simulate(config, name=name)
    if outcome.interrupted:
        raise SweepError(f"{name}: its process was interrupted")
    summary = outcome.summary
    del summary["journal_sha256"]  # depends on the name
    return summary
