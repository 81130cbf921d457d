"""Verdicts and tables, on made-up outcomes."""

from __future__ import annotations

from pathlib import Path

from validation.cases import Case
from validation.figures import Figures, middle_of, spread
from validation.predict import Outcome
from validation.report import picture, ranking, report, to_json, verdicts


def figures(step_s: float, lag: float = 1.0, idle: float = 0.1) -> Figures:
    return Figures(
        step_s=step_s,
        throughput=100 / step_s,
        phases={"minibatches": step_s / 4},
        generation_idle=idle,
        training_idle=0.5,
        lag=lag,
        discarded=0.0,
    )


def outcome(name: str, change: str, measured: list[float], predicted: float) -> Outcome:
    runs = tuple(figures(x) for x in measured)
    return Outcome(Case(name, change, {}, len(runs)), runs, figures(predicted))


FOUND = [
    outcome("base", "fitted", [1.0, 1.02, 0.98], 1.0),
    outcome("small", "batch", [0.5, 0.52, 0.48], 0.52),
    outcome("slow", "scheduler", [2.0, 2.2, 2.1], 2.6),
]


def test_errors_are_over_cases_that_nothing_was_fitted_to() -> None:
    lines = verdicts(FOUND)
    assert lines[0].startswith("2 cases")
    assert "MISSED step time, median error: 13.9%" in lines[1]
    assert "MISSED step time, worst error (slow): 23.8% (bar 10.0%)" in lines[2]
    assert any("met    mean lag" in line for line in lines)
    assert verdicts(FOUND[:1]) == ["every case here was fitted to"]


def test_schedules_are_ranked_where_reality_tells_them_apart() -> None:
    assert "met" in ranking(FOUND)[0]
    assert "1 of 1 pairs (0 more" in ranking(FOUND)[0]
    wrong = [FOUND[0], outcome("slow", "scheduler", [2.0, 2.2], 0.9)]
    assert "MISSED" in ranking(wrong)[0]
    assert "base and slow" in ranking(wrong)[0]
    close = [FOUND[0], outcome("same", "scheduler", [1.01, 0.97], 0.9)]
    assert "0 of 0 pairs (1 more" in ranking(close)[0]


def test_everything_is_in_text_json_and_picture(tmp_path: Path) -> None:
    text = report(FOUND)
    assert "+23.8%" in text
    assert "minibatches" in text
    assert [case["fitted"] for case in to_json(FOUND)["cases"]] == [True, False, False]
    assert picture(FOUND, tmp_path / "picture.png").stat().st_size > 10_000


def test_medians_and_noise() -> None:
    assert middle_of([figures(1.0), figures(2.0), figures(9.0)]).step_s == 2.0
    assert spread([1.0, 3.0]) == 0.5
    assert spread([0.0]) == 0.0
