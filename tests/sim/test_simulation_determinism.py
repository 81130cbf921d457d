"""The same seed gives the same bytes, in any process and however the run is cut; another does not.

That replay gives the same commands is checked on every run of `test_simulation_laws`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from areal_sched import ServerLost, built_in
from tests.sim.digest import busy_world, digest
from tests.sim.setups import begin
from tests.sim.worlds import live_through

ROOT = Path(__file__).resolve().parents[2]

each_scheduler = pytest.mark.parametrize("path", list(built_in()))


def elsewhere(**environment: str) -> dict[str, str]:
    """Hash per scheduler, from a process with that environment."""
    inherited = {k: v for k, v in os.environ.items() if k != "AREAL_SCHED_FREEZE"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim.digest"],
        cwd=ROOT,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(line.split() for line in done.stdout.splitlines())  # type: ignore[misc]


def test_the_bytes_depend_neither_on_the_hash_seed_nor_on_frozen_messages() -> None:
    here = {path: digest(path) for path in built_in()}
    assert len(set(here.values())) == len(here), "different schedulers, different journals"
    assert elsewhere(PYTHONHASHSEED="0") == here
    assert elsewhere(PYTHONHASHSEED="12345", AREAL_SCHED_FREEZE="1") == here


@each_scheduler
def test_the_same_seed_twice_and_another(path: str) -> None:
    assert digest(path, 1) == digest(path, 1)
    assert digest(path, 1) != digest(path, 2)


@each_scheduler
def test_a_run_may_be_cut_into_pieces(path: str) -> None:
    """As Ctrl-C and the progress bar do, after any number of events."""
    world = busy_world(path)
    whole = live_through(world)
    assert any(isinstance(entry.event, ServerLost) for entry in whole.entries)
    cut = begin(world.setup(), world.path, world.options)
    events = 0
    while not cut.simulation.run(1 + events % 7):
        events += 1
    cut.end()
    assert cut.journal == whole.journal
    assert cut.simulation.events == whole.simulation.events > events


@each_scheduler
def test_a_run_that_is_ended_early_has_a_journal_up_to_there(path: str) -> None:
    """The entries are the first ones of the whole run, and closing twice adds nothing."""
    world = busy_world(path)
    whole = live_through(world)
    part = begin(world.setup(), world.path, world.options)
    assert not part.simulation.run(whole.simulation.events // 2)
    part.end()
    journal = part.journal
    part.simulation.close()
    assert part.journal == journal
    assert 0 < len(part.entries) < len(whole.entries)
    assert part.entries == whole.entries[: len(part.entries)]
