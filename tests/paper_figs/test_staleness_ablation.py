"""The staleness ablation's table and picture, from recorded runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paper_figs import staleness_ablation as figure


def line(eta: int, objective: str, accuracy: float) -> str:
    return json.dumps(
        {
            "settings": {"limits.eta": eta, "real.ppo.objective": objective},
            "held_out": [[0, 0.1], [10, accuracy + 0.1], [20, accuracy]],
            "reward": [0.1, 0.3, 0.5],
            "lag_mean": [0.0, float(eta), float(eta)],
        }
    )


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "results.jsonl"
    lines = [line(0, "naive", 0.9), line(0, "decoupled", 0.8), line(8, "naive", 0.2)]
    path.write_text("\n".join([*lines, line(8, "naive", 0.4)]) + "\n")
    return path


def test_the_table_has_means_and_ranges_over_seeds(results: Path) -> None:
    cells = figure.read(results)
    assert cells[8, "naive"].accuracy == (0.2, 0.4)
    assert cells[8, "naive"].best == pytest.approx((0.3, 0.5))
    rows = [" ".join(row.split()) for row in figure.table(cells).splitlines()]
    assert rows[3] == "0 0.00 100.0 (100-100) 90.0 (90-90) 90.0 (90-90) 80.0 (80-80) 42.0 42.0"
    assert rows[4] == "8 5.33 40.0 (30-50) - 30.0 (20-40) - 35.7 41.0"
    assert rows[5] == "seeds per cell: 1, 2"


def test_the_command_prints_and_draws(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "made" / "picture.png"
    assert figure.main(["--results", str(results), "--picture", str(picture)]) == 0
    assert "decoupled" in capsys.readouterr().out
    assert picture.stat().st_size > 10_000


@pytest.mark.parametrize("text", ["", "{}\n", "no json\n"])
def test_what_is_no_result_is_refused(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(text)
    assert figure.main(["--results", str(path), "--picture", str(tmp_path / "p.png")]) == 2
    assert "results.jsonl" in capsys.readouterr().err


def test_the_recorded_runs_give_the_table_beside_them() -> None:
    checked = figure.RECORDED.parents[1] / "staleness_ablation.txt"
    assert figure.table(figure.read(figure.RECORDED)) + "\n" == checked.read_text()
