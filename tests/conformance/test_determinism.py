"""The same input gives the same bytes, in any process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from areal_sched import built_in
from tests.conformance.digest import digest

ROOT = Path(__file__).resolve().parents[2]


def digests(**environment: str) -> dict[str, str]:
    """Hash per scheduler, from a process with that environment."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("AREAL_SCHED_FREEZE",)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.conformance.digest"],
        cwd=ROOT,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(line.split() for line in done.stdout.splitlines())


def test_journals_depend_neither_on_the_hash_seed_nor_on_frozen_messages() -> None:
    here = {path: digest(path) for path in built_in()}
    assert len(set(here.values())) == len(here), "different schedulers, different journals"
    assert digests(PYTHONHASHSEED="1") == here
    assert digests(PYTHONHASHSEED="4242", AREAL_SCHED_FREEZE="1") == here
