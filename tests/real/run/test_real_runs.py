"""Short real runs: each transfer of weights, each mode of an update, the tutorial's scheduler."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from areal_real.config import load_config
from areal_real.rows import read_rows
from tests.house.repo import ROOT
from tests.real.run.test_run_laws import check_journal

pytestmark = pytest.mark.slow

STEPS = 3
SHORT = {
    "workload.steps": STEPS,
    "workload.prompts_per_step": 4,
    "workload.group_size": 4,
    "limits.max_rollouts_in_flight": 32,
    "real.warm_start.steps": 10,
    "real.evaluation.every_steps": "inf",
    "real.evaluation.problems": 4,
}
RUNS = {
    "two ranks, weights sent in place": (
        "tiny-cpu-tp2.toml",
        {
            "scheduler.class": "in_flight",
            "real.server.weight_transfer": "collective",
            "real.server.stream_interval_tokens": 0,
        },
    ),
    "the tutorial's, two servers": (
        "tiny-cpu.toml",
        {"scheduler.class": "examples.generate_ahead:GenerateAhead", "real.server.count": 2},
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_short_run_comes_to_its_end(name: str, tmp_path: Path) -> None:
    file, more = RUNS[name]
    path = ROOT / "configs" / "real" / file
    overrides = [f"{key}={value}" for key, value in {**SHORT, **more}.items()]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "areal_real.cli", "train", str(path), "--json"),
            *("--out", str(tmp_path / "run")),
            *(x for override in overrides for x in ("--set", override)),
        ],
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
    check_journal(tmp_path / "run" / "journal.jsonl.gz", load_config(path, overrides), STEPS)
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        # What the schedule counts on is never younger than what the server says.
        assert -1e-9 <= row["lag/reported_mean"] <= row["lag/mean"] + 1e-9
        assert row["lag/max"] <= 2
        if row["lag/max"] == 0:
            # Nothing is stale: after any transfer of weights the trainer computes the very
            # log-probabilities that the server reported.
            assert row["trainer/behaviour_weight_max"] == pytest.approx(1.0, abs=1e-4)
    assert rows[0]["lag/max"] == 0
    for picture in ("timeline.png", "learning.png"):
        assert (tmp_path / "run" / picture).stat().st_size > 10_000
