"""Runs that several test files look at; made once."""

from __future__ import annotations

import pytest

from analysis.facts import RunFacts
from analysis.recorder import RunRecorder
from tests.analysis.made_up_run import MadeUpRun


@pytest.fixture(scope="session")
def areal_run() -> MadeUpRun:
    """Asynchronous, with interruptions, failures, dropped and live rollouts."""
    return MadeUpRun("areal", steps=8, fail_share=0.15, eta=2, servers=5, gpus_per_server=2)


@pytest.fixture(scope="session")
def synchronous_run() -> MadeUpRun:
    """Colocated, taking turns."""
    return MadeUpRun("synchronous", steps=6, servers=6, training_gpus=6, colocated=True)


@pytest.fixture
def made_up_recorder() -> RunRecorder:
    """Of one server and one trainer; nothing is in it yet."""
    facts = RunFacts(
        name="made up",
        gpus=2,
        generation_gpus=1,
        gpus_per_server=1,
        servers=1,
        training_gpus=1,
        colocated=False,
        unused_gpus=0,
        group_size=1,
        train_batch_rollouts=1,
        steps=1,
        seed=1,
        config_sha256="",
    )
    return RunRecorder(facts)
