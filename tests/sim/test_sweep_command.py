"""``areal-sim sweep``: what varies, the table, the files."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest

from areal_sim.cli import main
from areal_sim.config import load_config
from areal_sim.rundir import simulate

ROOT = Path(__file__).parents[2]
HOME = str(ROOT / "configs" / "home-8gpu.toml")
SHORT = ["--set", "workload.steps=2", "--quiet"]


def test_every_combination_is_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sweep"
    varied = ["--vary", "limits.eta=0,2", "--vary", "scheduler.class=areal,in_flight"]
    assert main(["sweep", HOME, *varied, *SHORT, "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "in_flight" in told
    assert " *" in told
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == [
        "eta=0,class=areal",
        "eta=0,class=in_flight",
        "eta=2,class=areal",
        "eta=2,class=in_flight",
    ]
    config = load_config(HOME, ["workload.steps=2", "limits.eta=2", "scheduler.class=in_flight"])
    alone = simulate(config, name="x").summary
    assert rows[-1]["config_sha256"] == alone["config_sha256"]
    assert float(rows[-1]["step_time_s.mean"]) == alone["step_time_s"]["mean"]
    assert float(rows[-1]["gpu_time_share.decode"]) == alone["gpu_time_share"]["decode"]
    frame = pd.read_parquet(out / "results.parquet")
    assert frame["limits.eta"].tolist() == ["0", "0", "2", "2"]
    assert (out / "results.png").stat().st_size > 1000

    before = (out / "results.csv").read_bytes()
    (out / "results.csv").unlink()
    assert main(["sweep", HOME, *varied, *SHORT, "--out", str(out)]) == 0
    assert (out / "results.csv").read_bytes() == before, "and without simulating again"


def test_a_file_says_what_varies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text(
        f'base = "{HOME}"\n[set]\n"workload.steps" = 2\n[vary]\nschedule = [\n'
        '  { name = "both", "scheduler.class" = "areal", "limits.eta" = 1 },\n'
        '  { name = "none", "scheduler.class" = "synchronous", "limits.eta" = 0 },\n]\n'
    )
    assert main(["sweep", str(file), "--list", "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == "schedule=both\nschedule=none\n"
    assert not (tmp_path / "out").exists()
    assert main(["sweep", str(file), "--quiet", "--out", str(tmp_path / "out")]) == 0
    assert "none" in capsys.readouterr().out
    more = ["--vary", "limits.eta=1,2"]
    assert main(["sweep", str(file), *more, "--out", str(tmp_path / "no")]) == 2
    assert "says itself what varies" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing varies: give --vary, or a file with [vary]"),
        (["--vary", "limits.eta"], "limits.eta"),
        (["--vary", "limits.etta=1,2"], "limits.etta: no such key (did you mean 'eta'?)"),
        (["--vary", "limits.eta=1,1"], "eta=1: two runs of that name"),
        (["--vary", "limits.eta=1,x"], 'limits.eta = "x"'),
        (["--vary", "model.name=32b,7b"], "too much"),
        (["--vary", "limits.eta=1,2", "--jobs", "0"], "jobs = 0: must be at least 1"),
    ],
)
def test_what_cannot_be_swept(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sweep"
    assert main(["sweep", HOME, *arguments, *SHORT, "--out", str(out)]) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert len(told.err.strip().splitlines()) == 1
    assert not list(out.glob("results.*"))
