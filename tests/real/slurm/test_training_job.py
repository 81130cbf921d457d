"""A real training as a SLURM job: stopped by its time limit, queued again, finished.

One run in one go, since starting its parts takes longest.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from areal_real.config import load_config
from areal_real.rows import read_rows
from tests.house.repo import ROOT
from tests.real.run.test_run_laws import check_journal
from tests.real.slurm.cluster import Cluster

pytestmark = pytest.mark.slow

CONFIG = ROOT / "configs" / "real" / "tiny-cpu.toml"
STEPS = 8
SETTINGS = {
    "workload.steps": STEPS,
    "workload.prompts_per_step": 4,
    "workload.group_size": 4,
    "limits.max_rollouts_in_flight": 32,
    "real.checkpoint_every_steps": 2,
    "real.warm_start.steps": 20,
    "real.evaluation.every_steps": "inf",
    "real.evaluation.problems": 8,
}
PATIENCE_S = 300.0
NOTICE_S = 120


def submit(slurm: Cluster, folder: Path) -> str:
    """The command that a user would give, and give again; returns the job's number."""
    overrides = [x for key, value in SETTINGS.items() for x in ("--set", f"{key}={value}")]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "areal_real.cli", "launch", str(CONFIG), "--run-with", "local"),
            *("--out", str(folder), "--time", "20", "--checkpoint-before", str(NOTICE_S)),
            *overrides,
        ],
        cwd=ROOT,
        env=slurm.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.split()[1]


def shown(log: Path) -> str:
    """What a job has printed; a job that has not started has no log."""
    return log.read_text() if log.exists() else ""


def steps(folder: Path) -> int:
    rows = read_rows(folder / "metrics.jsonl")
    return int(rows[-1]["step"]) if rows else 0


def trainings(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "train" in words and str(folder) in words:
            found.append(process)
    return found


def test_a_run_outlives_its_time_limit(slurm: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    logs = tmp_path / "run.slurm"

    job = submit(slurm, folder)
    log = logs / f"{job}.out"
    slurm.until(lambda: steps(folder) >= 3, PATIENCE_S, log)
    (main,) = trainings(folder)
    # Held, so that it cannot be done before SLURM has looked at its time limits, each 30 s.
    main.send_signal(signal.SIGSTOP)
    minutes = int(time.time() - main.create_time()) // 60 + 2
    slurm.call("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")
    slurm.until(lambda: "the time limit is near" in shown(log), 90, log)
    assert slurm.field(job, "JobState") == "RUNNING"
    # As some sites preempt: SIGTERM to every process. Neither the run nor its trainer minds.
    slurm.call("scancel", "--full", "--signal=TERM", job)
    main.send_signal(signal.SIGCONT)
    slurm.until(lambda: "queued again" in shown(log), PATIENCE_S, log)
    text = shown(log)
    (stopped,) = re.findall(r"interrupted after step (\d+)", text)
    slurm.call("scontrol", "update", f"JobId={job}", "TimeLimit=20")

    slurm.until(lambda: slurm.ended(job) != "", PATIENCE_S, log)
    text = shown(log)
    assert slurm.field(job, "JobState") == "COMPLETED", text
    assert slurm.field(job, "Restarts") == "1"
    # The checkpoint is that of the very step it stopped after: nothing was lost.
    assert f"going on from step {stopped}: 0 later steps" in text
    assert "the run is complete" in text

    config = load_config(CONFIG, [f"{key}={value}" for key, value in SETTINGS.items()])
    check_journal(folder / "journal.jsonl.gz", config, STEPS)
    assert [int(row["step"]) for row in read_rows(folder / "metrics.jsonl")] == [
        *range(1, STEPS + 1)
    ]
    assert [row["step"] for row in read_rows(folder / "held_out.jsonl")] == [0, STEPS]
    replay = subprocess.run(
        [sys.executable, "-m", "areal_sim.cli", "replay", str(folder / "journal.jsonl.gz")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert replay.returncode == 0, replay.stderr
    assert "identical" in replay.stdout

    # The same command once more has nothing to do, and says so.
    overrides = [x for key, value in SETTINGS.items() for x in ("--set", f"{key}={value}")]
    for command, said in (
        (["launch", str(CONFIG), "--run-with", "local"], "nothing is left to submit"),
        (["train", str(CONFIG), "--resume-if-there"], f"all {STEPS} steps are done"),
    ):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "areal_real.cli", *command),
                *("--out", str(folder), *overrides),
            ],
            cwd=ROOT,
            env=slurm.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert said in done.stderr
