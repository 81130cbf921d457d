"""Jobs that start again: one command begins a run and goes on with it; signals end it in order."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from areal_real import session
from areal_real.checkpoints import Checkpoints
from areal_real.cli import main
from areal_real.config import config_sha256, load_config
from areal_real.folder import SHOWN, RunFolder
from areal_real.run import Outcome, _stop_on_signals
from areal_real.show import Quiet
from tests.house.repo import ROOT

TINY = ROOT / "configs" / "real" / "tiny-cpu.toml"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each training went on with a run; none is carried out."""
    resumed: list[bool] = []

    def train_in(*args: Any, resume: bool) -> session.Result:
        resumed.append(resume)
        return session.Result(Outcome(0, False), {}, {})

    monkeypatch.setattr(session, "_train_in", train_in)
    return resumed


def train(out: Path, *options: str) -> int:
    return main(["train", str(TINY), "--out", str(out), "--quiet", *options])


def test_the_same_command_begins_a_run_and_goes_on_with_it(
    tmp_path: Path, trained: list[bool]
) -> None:
    out = tmp_path / "runs" / "a"
    for _ in range(3):
        assert train(out, "--resume-if-there") == 0
    assert trained == [False, True, True]
    there = load_config(RunFolder(out).config)
    assert config_sha256(there) == config_sha256(load_config(TINY))


def test_more_steps_may_be_asked_for_and_nothing_else(
    tmp_path: Path, trained: list[bool], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "a", "--resume-if-there") == 0
    assert train(tmp_path / "a", "--resume-if-there", "--set", "workload.steps=70") == 0
    assert load_config(RunFolder(tmp_path / "a").config).workload.steps == 70
    assert train(tmp_path / "a", "--resume-if-there", "--set", "limits.eta=4") == 2
    error = capsys.readouterr().err
    assert "another configuration" in error
    assert ": limits.eta = 4, before 2; only" in error
    assert "workload.steps = " not in error
    assert trained == [False, True]


def test_no_fewer_steps_than_there_are(
    tmp_path: Path, trained: list[bool], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "a") == 0
    folder = RunFolder(tmp_path / "a")
    step = folder.checkpoints / "step-000003"
    step.mkdir()
    (step / "run.json").write_text(json.dumps({"version": 3, "journal_entries": 1}))
    newest = Checkpoints(folder.checkpoints, keep=1).newest()
    assert newest is not None
    assert newest.version == 3
    before = folder.config.read_bytes()
    assert train(tmp_path / "a", "--resume", "--set", "workload.steps=2") == 2
    assert "workload.steps = 2: the run there has done 3" in capsys.readouterr().err
    assert folder.config.read_bytes() == before
    assert train(tmp_path / "a", "--resume", "--set", "workload.steps=3") == 0
    assert trained == [False, True]


def test_where_it_listens_may_change(tmp_path: Path, trained: list[bool]) -> None:
    assert train(tmp_path / "a") == 0
    assert train(tmp_path / "a", "--resume", "--set", "real.listen=cluster") == 0
    assert load_config(RunFolder(tmp_path / "a").config).real.listen == "cluster"
    assert trained == [False, True]


def test_many_changed_keys_are_counted(
    tmp_path: Path, trained: list[bool], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "a") == 0
    keys = ("eta", "max_lag", "max_rollouts_in_flight", "max_failures_per_group")
    changed = [x for key in keys for x in ("--set", f"limits.{key}=77")]
    assert train(tmp_path / "a", "--resume", *changed) == 2
    error = capsys.readouterr().err
    assert error.count(" = 77, before ") == SHOWN
    assert "and 1 more; only" in error


def test_a_run_that_is_there_is_offered(
    tmp_path: Path, trained: list[bool], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "a") == 0
    assert train(tmp_path / "a") == 2
    assert "--resume goes on with it, --overwrite replaces it" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--resume", "--resume-if-there", "--overwrite"])
def test_a_run_at_work_is_left_alone(
    tmp_path: Path, trained: list[bool], capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert train(tmp_path / "a") == 0
    folder = RunFolder(tmp_path / "a")
    before = folder.config.read_bytes()
    with folder.lock():
        assert train(tmp_path / "a", option, "--set", "workload.steps=70") == 2
    assert "another program is at work here" in capsys.readouterr().err
    assert folder.config.read_bytes() == before
    assert trained == [False]


def test_a_run_that_ended_in_its_first_write_is_begun(tmp_path: Path, trained: list[bool]) -> None:
    out = tmp_path / "a"
    out.mkdir()
    (out / "config.toml.part").write_text("[workl")
    assert train(out, "--resume-if-there") == 0
    assert trained == [False]
    assert not (out / "config.toml.part").exists()


def test_a_run_that_ended_after_its_first_write_is_gone_on_with(
    tmp_path: Path, trained: list[bool]
) -> None:
    assert train(tmp_path / "a", "--resume-if-there") == 0
    for folder in (tmp_path / "a").iterdir():
        if folder.is_dir():
            folder.rmdir()
    assert train(tmp_path / "a", "--resume-if-there") == 0
    assert trained == [False, True]
    assert (tmp_path / "a" / "checkpoints").is_dir()


def test_something_else_is_left_alone(
    tmp_path: Path, trained: list[bool], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").touch()
    assert train(tmp_path, "--resume-if-there") == 2
    assert "exists and is not empty" in capsys.readouterr().err
    assert (trained, os.listdir(tmp_path)) == ([], ["mine.txt"])


def test_a_simulated_run_is_left_alone(
    tmp_path: Path, trained: list[bool], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.toml").write_text((ROOT / "configs" / "home-8gpu.toml").read_text())
    assert train(tmp_path, "--resume-if-there") == 2
    assert f"--out {tmp_path}: no real run is there: " in capsys.readouterr().err
    assert (trained, os.listdir(tmp_path)) == ([], ["config.toml"])


def test_it_excludes_the_other_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for other in ("--resume", "--overwrite"):
        with pytest.raises(SystemExit) as stop:
            train(tmp_path / "a", "--resume-if-there", other)
        assert stop.value.code == 2
        assert "not allowed with" in capsys.readouterr().err


async def told(*numbers: signal.Signals) -> tuple[bool, bool]:
    """Whether these signals stop a run, and whether they end the program at once."""
    with _stop_on_signals(Quiet()) as stop:
        at_once = False
        try:
            for number in numbers:
                os.kill(os.getpid(), number)
                await asyncio.sleep(0.01)
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            at_once = True
        return stop.is_set(), at_once


@pytest.mark.parametrize(
    ("numbers", "stops", "at_once"),
    [
        ((), False, False),
        ((signal.SIGINT,), True, False),
        ((signal.SIGINT, signal.SIGINT), True, True),
        ((signal.SIGTERM, signal.SIGTERM), True, False),
        # A job's script passes on what it is told, and SLURM tells every process as well.
        ((signal.SIGTERM, signal.SIGINT, signal.SIGTERM), True, False),
    ],
)
def test_only_a_second_ctrl_c_ends_a_run_at_once(
    numbers: tuple[signal.Signals, ...], stops: bool, at_once: bool
) -> None:
    assert asyncio.run(told(*numbers)) == (stops, at_once)
