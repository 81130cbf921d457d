"""Settings every test runs under. They come before any import of the packages under test."""

import os
import sys

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
