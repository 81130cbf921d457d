"""Sweeps: which runs they are made of, and that they go on where they stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from areal_real.sweep import SweepRun, read_sweep, result_of, sweep
from areal_sched.errors import ConfigError
from tests.house.repo import ROOT

BASE = ROOT / "configs" / "real" / "tiny-cpu.toml"


def written(folder: Path, text: str) -> Path:
    path = folder / "sweep.toml"
    path.write_text(f'base = "{BASE}"\n{text}')
    return path


def test_every_combination_is_a_run(tmp_path: Path) -> None:
    text = """
        [set]
        "workload.steps" = 7
        [vary]
        "limits.eta" = [0, 3]
        kind = [
            { name = "plain", "real.ppo.objective" = "naive" },
            { name = "two", "real.ppo.objective" = "decoupled", "real.ppo.clip" = 0.1 },
        ]
    """
    runs = read_sweep(written(tmp_path, text))
    assert [run.name for run in runs] == [
        "eta=0,kind=plain",
        "eta=0,kind=two",
        "eta=3,kind=plain",
        "eta=3,kind=two",
    ]
    assert [run.config.bounds.eta for run in runs] == [0, 0, 3, 3]
    assert [run.config.real.ppo.clip for run in runs] == [0.2, 0.1, 0.2, 0.1]
    assert {run.config.workload.steps for run in runs} == {7}
    assert runs[1].settings == {"limits.eta": 0, "kind": "two"}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs" / "sweeps").glob("*.toml")), ids=lambda x: x.stem
)
def test_the_ready_sweeps_can_be_read(path: Path) -> None:
    runs = read_sweep(path)
    assert len({run.name for run in runs}) == len(runs) > 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"\[vary\]: expected keys"),
        ("[vary]\n'limits.eta' = 3", "expected a list"),
        ("[vary]\n'limits.eta' = []", "expected a list"),
        ("[vary]\n'limits.et' = [1]", "did you mean"),
        ("[very]\n'limits.eta' = [1]", "very: no such key.*vary"),
        ("[vary]\nkind = [{ 'limits.eta' = 1 }]", "needs a name"),
        ("[vary]\n'limits.eta' = [1]\n[set]\n'workload.steps' = 0", "workload.steps = 0"),
        ("[vary", "sweep.toml"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_sweep(written(tmp_path, text))


def made_up_run(run: SweepRun, path: Path, resume: bool) -> bool:
    path.mkdir(exist_ok=True)
    (path / "config.toml").touch()
    row = {"step": 1, "time_s": 60.0, "reward": 0.5, "lag/mean": 0.25}
    (path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    (path / "held_out.jsonl").write_text('{"step": 1, "accuracy": 0.75}\n')
    (path / "summary.json").write_text('{"idle_share": {"generation": 0.1, "training": null}}')
    return True


def test_a_sweep_goes_on_where_it_stopped(tmp_path: Path) -> None:
    runs = read_sweep(written(tmp_path, "[vary]\n'real.seed' = [1, 2, 3]"))
    calls: list[tuple[str, bool]] = []

    def stopped_in_the_second(run: SweepRun, path: Path, resume: bool) -> bool:
        calls.append((run.name, resume))
        return made_up_run(run, path, resume) and run.name != "seed=2"

    out = tmp_path / "out"
    assert [run.name for run, _ in sweep(runs, out, stopped_in_the_second)] == ["seed=1"]

    def goes_on(run: SweepRun, path: Path, resume: bool) -> bool:
        calls.append((run.name, resume))
        return made_up_run(run, path, resume)

    found = {run.name: row for run, row in sweep(runs, out, goes_on)}
    assert list(found) == ["seed=1", "seed=2", "seed=3"]
    assert calls == [("seed=1", False), ("seed=2", False), ("seed=2", True), ("seed=3", False)]
    lines = (out / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == list(found.values())
    assert found["seed=3"] == result_of(runs[2], out / "seed=3")
    assert found["seed=3"]["minutes"] == 1.0
    assert found["seed=3"]["idle"] == {"generation": 0.1}
    assert list(sweep(runs, out, lambda *_: pytest.fail("all is done")))
