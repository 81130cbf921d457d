"""A real run, with the real SGLang and the real Megatron-Core, to which everything happens.

One run in one go, since starting its parts takes longest: a server is killed while it generates,
the trainer in a step, then the whole program; it is resumed, stopped with Ctrl-C, and resumed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from areal_real.config import load_config
from areal_real.rows import read_rows
from tests.house.repo import ROOT
from tests.real.run.test_run_laws import check_journal

pytestmark = pytest.mark.slow

CONFIG = ROOT / "configs" / "real" / "tiny-cpu.toml"
STEPS = 14
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
PATIENCE_S = 240.0


class RealRun:
    """``areal-real train`` as a process of its own."""

    def __init__(self, folder: Path, *, resume: bool) -> None:
        self.folder = folder
        overrides = [x for key, value in SETTINGS.items() for x in ("--set", f"{key}={value}")]
        self.log = folder.with_name(folder.name + ("-resumed" if resume else "") + ".log")
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "areal_real.cli", "train", str(CONFIG)),
                    *("--out", str(folder), *overrides),
                    *(["--resume"] if resume else []),
                ],
                stdout=output,
                stderr=output,
                cwd=ROOT,
                start_new_session=True,
            )

    @property
    def steps(self) -> int:
        rows = read_rows(self.folder / "metrics.jsonl")
        return int(rows[-1]["step"]) if rows else 0

    def until(self, condition: Callable[[], bool]) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end_s, self.log.read_text()
            time.sleep(0.05)

    def parts(self, word: str) -> list[psutil.Process]:
        """Processes below the run's whose command line has a word."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if word in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def no_orphans(tmp_path: Path) -> Iterator[None]:
    """Afterwards nothing runs that has the run's folder open or in its environment."""
    yield
    end_s = time.monotonic() + 20
    while left := [
        x.info["cmdline"]
        for x in psutil.process_iter(["cmdline"])
        if str(tmp_path) in " ".join(x.info["cmdline"] or ())
    ]:
        assert time.monotonic() < end_s, left
        time.sleep(0.2)


def test_everything_happens_to_a_run_and_nothing_is_lost(tmp_path: Path, no_orphans: None) -> None:
    folder = tmp_path / "run"

    # A server is killed while it generates: it comes back, and its rollouts go on.
    run = RealRun(folder, resume=False)
    run.until(lambda: run.steps >= 2)
    launcher = run.parts("cpu_launcher")
    assert launcher
    launcher[0].send_signal(signal.SIGKILL)
    run.until(lambda: "server 0 is back" in run.log.read_text())
    after = run.steps
    run.until(lambda: run.steps >= after + 2)

    # The trainer is killed in the middle of things: it goes on from its checkpoint.
    worker = [
        x
        for x in run.parts("areal_real.training.worker")
        if "torch.distributed.run" not in " ".join(x.cmdline())
    ]
    assert worker
    worker[0].send_signal(signal.SIGKILL)
    after = run.steps
    run.until(lambda: run.steps >= after + 2)

    # The program itself is killed: nothing stays behind, and it goes on from its checkpoint.
    below = psutil.Process(run.process.pid).children(recursive=True)
    assert below
    run.process.send_signal(signal.SIGKILL)
    run.process.wait(10)
    _, alive = psutil.wait_procs(below, timeout=20)
    assert alive == []

    run = RealRun(folder, resume=True)
    before = run.steps
    run.until(lambda: run.steps >= min(before + 1, STEPS - 1))

    # Ctrl-C: it ends after the step, with a checkpoint, and goes on from there.
    os.kill(run.process.pid, signal.SIGINT)
    assert run.wait() == 130, run.log.read_text()
    assert "--resume" in run.log.read_text()
    assert json.loads((folder / "summary.json").read_text())["interrupted_by_user"]

    run = RealRun(folder, resume=True)
    assert run.wait() == 0, run.log.read_text()
    config = load_config(CONFIG, [f"{key}={value}" for key, value in SETTINGS.items()])
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
