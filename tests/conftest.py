"""Settings every test runs under. They come before any import of the packages under test."""

import os
import signal
import sys
from typing import Any

import pytest

if "areal_sched" in sys.modules:
    raise RuntimeError("areal_sched was imported before tests/conftest.py: it is not frozen")
os.environ["AREAL_SCHED_FREEZE"] = "1"  # events and commands are truly frozen under tests
os.environ["MPLBACKEND"] = "Agg"  # no test opens a window
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in the background of a shell; what the tests start would be deaf to their Ctrl-C too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

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

TOGETHER = (
    "tests/real/security/",
    "tests/real/serving/",
    "tests/real/slurm/",
    "tests/real/training/",
    "tests/sim/test_sweep_on_ray.py",
)
"""Tests of one folder or file share what takes long to start: one worker of xdist has them all."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getoption("dist") != "load":
        return None  # another way was asked for
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class Together(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return next((place for place in TOGETHER if nodeid.startswith(place)), nodeid)

    return Together(config, log)
