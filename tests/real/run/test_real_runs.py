"""A short real run of the tutorial's scheduler, with two servers.

Another, with two ranks and weights that are sent: `tests.real.security.test_run`, which watches it.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.house.repo import ROOT
from tests.real.run.short import STEPS, check, command

FILE = "tiny-cpu.toml"
CHANGED = {"scheduler.class": "examples.generate_ahead:GenerateAhead", "real.server.count": 2}


@pytest.mark.slow
def test_a_run_of_the_tutorials_scheduler_comes_to_its_end(tmp_path: Path) -> None:
    done = subprocess.run(
        [*command(FILE, CHANGED, tmp_path / "run"), "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["steps"] == STEPS
    assert summary["recomputed_tokens"] >= 0
    check(FILE, CHANGED, tmp_path / "run")
