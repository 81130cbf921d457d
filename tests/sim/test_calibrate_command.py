"""``areal-sim calibrate`` on a recorded real run, and on what it has to refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from areal_sched.limits import Limits
from areal_sim.cli import main
from areal_sim.config import load_config
from areal_sim.costs import FittedCosts
from tests.house.repo import ROOT
from tests.sim.setups import costs, setup, simulate
from traces import load as load_workload

JOURNALS = ROOT / "validation" / "journals"
BASE, FEW = JOURNALS / "base-1.jsonl.gz", JOURNALS / "few-at-once-1.jsonl.gz"


def test_a_run_is_calibrated_and_simulated_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, config = tmp_path / "costs.toml", tmp_path / "sim.toml"
    assert main(["calibrate", str(BASE), str(FEW), "--out", str(out), "--config", str(config)]) == 0
    told = capsys.readouterr().out
    assert "fitted to" in told
    assert "a trainer at work slows a server down by" in told
    assert "between scheduler and engines: request to engine" in told
    made = FittedCosts.load(out)
    assert 1e12 / 100 < made.server_cost.decode_per_rollout_fs < 1e12
    assert made.host_cost.cores == 2
    assert made.client_cost.dispatch_s > 0
    again = load_config(config, ["workload.steps=3"])
    assert again.servers == 1
    assert again.measured
    table = load_workload(tmp_path / "sim-lengths.parquet")
    assert (table.groupby("group_id").size() == 8).all()
    assert not list(tmp_path.glob("part-of-*"))
    assert main(["run", str(config), "--set", "workload.steps=3", "--json", "--quiet"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["steps"] == 3
    assert 0.3 < summary["step_time_s"]["mean"] < 3


def test_part_of_a_run_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "costs.toml"
    assert main(["calibrate", str(BASE), "--out", str(out), "--steps", "5:14", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["steps"] == 10
    assert {x["phase"] for x in told["fits"]} >= {"engine", "minibatch", "load weights"}
    engine = told["fits"][0]
    assert any(not coefficient["determined"] for coefficient in engine["coefficients"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "9"], "--steps 9: expected FIRST:LAST"),
        (["--steps", "9:3"], "--steps 9:3: expected FIRST:LAST"),
        (["--steps", "0:3"], "--steps 0:3: expected FIRST:LAST"),
        (["--steps", "300:"], "none of them from step 300"),
    ],
)
def test_what_cannot_be_used_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    out = tmp_path / "costs.toml"
    assert main(["calibrate", str(BASE), "--out", str(out), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_other_journals_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = Limits(
        train_batch_rollouts=2,
        group_size=1,
        eta=1,
        max_lag=None,
        max_rollouts_in_flight=4,
        max_failures_per_group=3,
    )
    simulated = simulate(setup(limits, costs=costs())).save(tmp_path)
    out = tmp_path / "costs.toml"
    for path, message in (
        (simulated, "no 'layout'"),
        (tmp_path / "nothing.jsonl.gz", "nothing.jsonl.gz"),
    ):
        assert main(["calibrate", str(path), "--out", str(out)]) == 2
        assert message in capsys.readouterr().err
        assert not out.exists()


def test_nothing_is_left_behind_that_is_not_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "costs.toml")
    for more, message in (
        (["--out", str(tmp_path / "no" / "costs.toml")], "its folder does not exist"),
        (["--out", out, "--config", str(tmp_path / "no" / "sim.toml")], "folder does not exist"),
        (["--out", out, "--config", str(tmp_path)], "is a folder"),
        (["--out", out, "--config", out], "is the file of --out"),
    ):
        assert main(["calibrate", str(BASE), *more]) == 2
        assert message in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []


def test_a_journal_that_breaks_off_is_used_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(BASE.read_bytes()[:90_000])
    out = tmp_path / "costs.toml"
    assert main(["calibrate", str(cut), "--out", str(out), "--json"]) == 0
    told = capsys.readouterr()
    assert "breaks off" in told.err
    json.loads(told.out, parse_constant=pytest.fail)
