"""Ctrl-C: the first ends the run where it stands and keeps what it did; the second ends at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from analysis.rundir import read_summary
from areal_sched import JournalReader
from areal_sim import rundir
from areal_sim.config import load_config
from areal_sim.rundir import Progress, simulate
from areal_sim.simulation import Simulation
from tests.sim.cli_cases import ROOT, SMALL, command, config, say

LONG = SMALL.replace("steps = 6", "steps = 1000000")

FILES = {
    "accounts.csv",
    "config.toml",
    "figures",
    "journal.jsonl.gz",
    "steps.parquet",
    "summary.json",
    "timeline.png",
    "trace.json.gz",
    "trajectories.parquet",
}


def check_directory(out: Path, capsys: pytest.CaptureFixture[str]) -> int:
    """A complete run directory of an interrupted run, whose journal replays; returns its steps."""
    assert {path.name for path in out.iterdir()} == FILES
    summary = read_summary(out)
    assert summary["interrupted_by_user"] is True
    assert len(pd.read_parquet(out / "steps.parquet")) == summary["steps"]
    assert summary["trajectories"] == 8 * summary["steps"]
    reader = JournalReader(out / "journal.jsonl.gz")
    assert sum(1 for _ in reader.entries()) > 0
    assert not reader.truncated
    said = say(capsys, "replay", out)
    assert (said.code, said.err) == (0, "")
    assert "breaks off" not in said.out
    # Made again from the journal, it is still the summary of a run that was cut short.
    assert say(capsys, "figures", out).code == 0
    again = read_summary(out)
    for key in ("trajectories_per_wall_s", "realtime_factor"):
        del again[key], summary[key]
    assert again == summary
    return int(summary["steps"])


@pytest.mark.parametrize("looks", [0, 3])
def test_the_first_ends_the_run_where_it_stands(
    looks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: before the first training step, and after some."""
    monkeypatch.setattr(rundir, "_EVENTS_BETWEEN_LOOKS", 3 if looks == 0 else 100)
    before = signal.getsignal(signal.SIGINT)
    told: list[Progress] = []

    def stop(progress: Progress) -> None:
        if len(told) == looks:
            signal.raise_signal(signal.SIGINT)
        assert len(told) < looks + 2, "it goes on and on"
        told.append(progress)

    out = tmp_path / "run"
    small = load_config(config(tmp_path, LONG))
    outcome = simulate(small, name="small", out_dir=out, progress=stop)
    assert outcome.interrupted
    assert signal.getsignal(signal.SIGINT) is before, "the handler is put back"
    steps = check_directory(out, capsys)
    assert (steps == 0) == (looks == 0)
    assert steps == outcome.summary["steps"] < 1_000_000


def test_the_second_is_not_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal is closed all the same, and there is no summary that could be taken for whole."""
    monkeypatch.setattr(rundir, "_EVENTS_BETWEEN_LOOKS", 100)

    def stop(progress: Progress) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        simulate(load_config(config(tmp_path, LONG)), name="a", out_dir=out, progress=stop)
    assert {path.name for path in out.iterdir()} == {"config.toml", "journal.jsonl.gz"}
    reader = JournalReader(out / "journal.jsonl.gz")
    assert sum(1 for _ in reader) > 10
    assert not reader.truncated


@contextmanager
def running(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A long run in a process of its own, some way into its journal."""
    out = folder / "run"
    environment = {k: v for k, v in os.environ.items() if k != "AREAL_SCHED_FREEZE"}
    process = subprocess.Popen(
        command("run", config(folder, LONG), "--out", out),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        journal = out / "journal.jsonl.gz"
        for _ in range(6000):
            if journal.exists() and journal.stat().st_size > 50_000:
                break
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_in_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(tmp_path) as process:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.endswith("interrupted: this is the run as far as it came\n")
    assert "trajectories trained" in out
    assert check_directory(tmp_path / "run", capsys) > 10


def test_ctrl_c_twice_in_a_terminal(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.endswith("areal-sim: interrupted\n")
    assert "Traceback" not in err
    assert not (tmp_path / "run" / "summary.json").exists()
    list(JournalReader(tmp_path / "run" / "journal.jsonl.gz"))


def test_compare_and_demo_end_with_130_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each look at the clock after the first training step finds that Ctrl-C was pressed."""
    monkeypatch.setattr(rundir, "_EVENTS_BETWEEN_LOOKS", 100)
    progress = rundir._progress

    def pressed(simulation: Simulation, began_s: float) -> Progress:
        caught = signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        if caught and simulation.state.weight_version:
            signal.raise_signal(signal.SIGINT)
        return progress(simulation, began_s)

    monkeypatch.setattr(rundir, "_progress", pressed)
    long = config(tmp_path, LONG)
    said = say(capsys, "compare", long, long)
    assert said.code == 130
    assert said.err.endswith("areal-sim: interrupted\n")
    said = say(capsys, "demo", "--out", tmp_path / "demo", "--steps", 3)
    assert said.code == 130
    # The synchronous run is in a process of its own, which is not asked here.
    assert said.err.endswith("demo/areal holds the run as far as it came\n")
    summary = json.loads((tmp_path / "demo" / "areal" / "summary.json").read_text())
    assert summary["interrupted_by_user"] is True
