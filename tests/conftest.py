"""Settings every test runs under. They come before any import of the packages under test."""

import os
import signal
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

if "areal_sched" in sys.modules:
    raise RuntimeError("areal_sched was imported before tests/conftest.py: it is not frozen")
os.environ["AREAL_SCHED_FREEZE"] = "1"  # events and commands are truly frozen under tests
os.environ["MPLBACKEND"] = "Agg"  # no test opens a window
# Hundreds of processes import this project under tests: it is compiled once, not in each of them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in the background of a shell; what the tests start would be deaf to their Ctrl-C too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

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

CLUSTERS = (
    "tests/real/placement/test_room.py",
    "tests/real/run/test_on_ray.py",
    "tests/real/run/test_ray_keeps_no_calls.py",
    "tests/real/run/test_two_hosts.py",
    "tests/real/security/test_ray.py",
    "tests/real/slurm/",
    "tests/sim/test_sweep_on_ray.py",
)
"""Tests of clusters mostly wait: one worker has them all, from the start; the others compute."""

FOLDERS = ("tests/real/security/", "tests/real/serving/", "tests/real/training/")
"""The files of a folder share what takes long to start, so one worker has them."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # a worker of xdist
        items.sort(key=lambda item: not item.nodeid.startswith(CLUSTERS))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getoption("dist") != "load":
        return None  # another way was asked for
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

    class Together(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(CLUSTERS):
                return "clusters"
            file = str(super()._split_scope(nodeid))
            return next((folder for folder in FOLDERS if nodeid.startswith(folder)), file)

    config.option.loadscopereorder = False  # in the order of collection: clusters first
    return Together(config, log)
