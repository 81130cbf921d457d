"""Runs that several tests look at; none of them writes there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from areal_sim.config import load_config
from areal_sim.rundir import simulate
from tests.sim.cli_cases import config


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run directory of the small configuration under a scheduler, made once."""
    made: dict[str, Path] = {}

    def directory(scheduler: str) -> Path:
        if scheduler not in made:
            folder = tmp_path_factory.mktemp(scheduler)
            overrides = [f"scheduler.class={scheduler}"]
            simulate(load_config(config(folder), overrides), name="small", out_dir=folder / "run")
            made[scheduler] = folder / "run"
        return made[scheduler]

    return directory


@pytest.fixture(scope="session")
def run_dir(run_of: Callable[[str], Path]) -> Path:
    """The run directory of the small configuration as it is."""
    return run_of("areal")
