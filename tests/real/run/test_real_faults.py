"""A real run, with the real SGLang and the real Megatron-Core, to which everything happens.

One run in one go, since starting its parts takes longest: a server is killed while it generates,
the trainer in a step, then the whole program; it is resumed, and comes to its end. All that can
happen besides: `python -m benchmarks.faults`.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from areal_real.config import load_config
from areal_real.rows import read_rows
from benchmarks.faults.drive import MARK, TINY, RealRun, end_all, processes_of
from tests.house.repo import ROOT
from tests.real.run.test_run_laws import check_journal

pytestmark = pytest.mark.slow

STEPS = 10
SETTINGS = {
    "workload.steps": STEPS,
    "workload.prompts_per_step": 4,
    "workload.group_size": 4,
    "limits.max_rollouts_in_flight": 32,
    "real.checkpoint_every_steps": 1,
    "real.warm_start.steps": 20,
    "real.evaluation.every_steps": "inf",
    "real.evaluation.problems": 8,
}


@pytest.fixture
def no_orphans() -> Iterator[str]:
    """A mark for all processes of a run; afterwards none of them is left."""
    mark = uuid.uuid4().hex
    yield mark
    end_s = time.monotonic() + 20
    while left := processes_of(mark):
        if time.monotonic() > end_s:
            end_all(left)
            pytest.fail(f"left running: {left}")
        time.sleep(0.2)


def test_everything_happens_to_a_run_and_nothing_is_lost(tmp_path: Path, no_orphans: str) -> None:
    folder = tmp_path / "run"

    def start(*, resume: bool) -> RealRun:
        return RealRun(folder, SETTINGS, resume=resume, environment={MARK: no_orphans})

    # A server is killed while it generates: it comes back, and its rollouts go on.
    run = start(resume=False)
    run.until(lambda: run.steps >= 2)
    launcher = run.parts("cpu_launcher")
    assert launcher
    launcher[0].send_signal(signal.SIGKILL)
    run.until(lambda: "server 0 is back" in run.text)
    after = run.steps
    run.until(lambda: run.steps >= after + 2)

    # The trainer is killed in the middle of things: it goes on from its checkpoint.
    run.ranks()[0].send_signal(signal.SIGKILL)
    after = run.steps
    run.until(lambda: run.steps >= after + 2)

    # The program itself is killed: nothing stays behind, and it goes on from its checkpoint.
    below = psutil.Process(run.process.pid).children(recursive=True)
    assert below
    run.process.send_signal(signal.SIGKILL)
    run.process.wait(10)
    _, alive = psutil.wait_procs(below, timeout=20)
    assert alive == []

    run = start(resume=True)
    assert run.wait() == 0, run.text
    config = load_config(TINY, [f"{key}={value}" for key, value in SETTINGS.items()])
    check_journal(folder / "journal.jsonl.gz", config, STEPS)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == STEPS
    assert set(summary["held_out_accuracy"]) == {"0", str(STEPS)}
    assert [int(row["step"]) for row in read_rows(folder / "metrics.jsonl")] == [
        *range(1, STEPS + 1)
    ]
    replay = subprocess.run(
        [sys.executable, "-m", "areal_sim.cli", "replay", str(folder / "journal.jsonl.gz")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert replay.returncode == 0, replay.stderr
    assert "identical" in replay.stdout
