"""Runs that several test files look at; made once."""

from __future__ import annotations

import pytest

from tests.analysis.made_up_run import MadeUpRun


@pytest.fixture(scope="session")
def areal_run() -> MadeUpRun:
    """Asynchronous, with interruptions, failures, dropped and live rollouts."""
    return MadeUpRun("areal", steps=8, fail_share=0.15, eta=2, servers=5, gpus_per_server=2)


@pytest.fixture(scope="session")
def synchronous_run() -> MadeUpRun:
    """Colocated, taking turns."""
    return MadeUpRun("synchronous", steps=6, servers=6, training_gpus=6, colocated=True)
