"""Settings every test runs under. They come before any import of the packages under test."""

import os
import sys
from pathlib import Path

import pytest

if "areal_sched" in sys.modules:
    raise RuntimeError("areal_sched was imported before tests/conftest.py: it is not frozen")
os.environ["AREAL_SCHED_FREEZE"] = "1"  # events and commands are truly frozen under tests
os.environ["MPLBACKEND"] = "Agg"  # no test opens a window

from hypothesis import HealthCheck, settings

settings.register_profile("dev", deadline=None)
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
default_profile = "ci" if "CI" in os.environ else "dev"
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", default_profile))

ROOT = Path(__file__).parent
TOGETHER = (
    "real/security",
    "real/serving",
    "real/slurm",
    "real/training",
    "sim/test_sweep_on_ray.py",
)
"""Tests of one folder or file share what takes long to start: one worker of pytest has them all."""


@pytest.hookimpl(tryfirst=True)  # before xdist looks for the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        place = item.path.relative_to(ROOT).as_posix()
        for name in TOGETHER:
            if place == name or place.startswith(f"{name}/"):
                item.add_marker(pytest.mark.xdist_group(name))
