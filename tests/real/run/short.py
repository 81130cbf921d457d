"""A short real run: its command, and what must be true of what it leaves."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from areal_real.config import load_config
from areal_real.rows import read_rows
from tests.house.repo import ROOT
from tests.real.run.test_run_laws import check_journal

STEPS = 3
SHORT: Mapping[str, object] = {
    "workload.steps": STEPS,
    "workload.prompts_per_step": 4,
    "workload.group_size": 4,
    "limits.max_rollouts_in_flight": 32,
    "real.warm_start.steps": 10,
    "real.evaluation.every_steps": "inf",
    "real.evaluation.problems": 4,
}


def command(file: str, more: Mapping[str, object], out: Path) -> list[str]:
    """Train by a file of configs/real, shortened and changed, to be started in `ROOT`."""
    overrides = [x for setting in _settings(more) for x in ("--set", setting)]
    path = str(ROOT / "configs" / "real" / file)
    return [sys.executable, "-m", "areal_real.cli", "train", path, "--out", str(out), *overrides]


def check(file: str, more: Mapping[str, object], out: Path) -> None:
    """What a run that has come to its end leaves in `out`."""
    config = load_config(ROOT / "configs" / "real" / file, _settings(more))
    check_journal(out / "journal.jsonl.gz", config, STEPS)
    rows = read_rows(out / "metrics.jsonl")
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
        assert (out / picture).stat().st_size > 10_000


def _settings(more: Mapping[str, object]) -> list[str]:
    return [f"{key}={value}" for key, value in {**SHORT, **more}.items()]
