"""Two runs side by side."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis.compare import compare, reference
from analysis.errors import AnalysisError
from analysis.phases import PHASE_KEYS, phases
from analysis.summary import KEYS, summarise
from tests.analysis.made_up_run import MadeUpRun

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reference" / "comparison.md"


@pytest.fixture(scope="module")
def summaries(
    areal_run: MadeUpRun, synchronous_run: MadeUpRun
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the synchronous and the asynchronous run, as read from files."""
    made = [summarise(x.recorder, x.now_ns, 1.0, x.sha256) for x in (synchronous_run, areal_run)]
    a, b = json.loads(json.dumps(made))
    return a, b


def printed(comparison: Any) -> str:
    text = io.StringIO()
    Console(file=text, width=140).print(comparison.table())
    return text.getvalue()


def test_rows(summaries: tuple[dict[str, Any], dict[str, Any]]) -> None:
    a, b = summaries
    rows = {row.key: row for row in compare(a, b).rows}
    step = rows["step_time_s.mean"]
    assert (step.a, step.b, step.unit) == (a["step_time_s"]["mean"], b["step_time_s"]["mean"], "s")
    assert step.difference == b["step_time_s"]["mean"] - a["step_time_s"]["mean"]
    assert step.ratio == b["step_time_s"]["mean"] / a["step_time_s"]["mean"]
    assert (step.error, step.error_unit) == (pytest.approx(100 * (step.ratio - 1)), "percent")
    lag = rows["lag.mean"]
    assert lag.a == 0
    assert lag.ratio is None
    assert lag.error is None, "in percent of nothing"
    assert lag.difference == lag.b
    decode = rows["gpu_time_share.decode"]
    assert decode.b == b["gpu_time_share"]["decode"]
    points = 100 * (b["gpu_time_share"]["decode"] - a["gpu_time_share"]["decode"])
    assert (decode.error, decode.error_unit) == (points, "points")
    numbers = {key.name for key in KEYS} - {
        "name", "scheduler", "seed", "config_sha256", "journal_sha256",
        "lag.histogram", "gpu_time_share",
    }  # fmt: skip
    dynamic = ("gpu_time_share.", "lag.share.")
    phases = {key.name for key in PHASE_KEYS}
    assert numbers | phases == {key for key in rows if not key.startswith(dynamic)}
    assert len(rows) == len(compare(a, b).rows), "every key is there once"
    assert {rows[key].a for key in phases} == {None}, "a summary alone says nothing of them"


def test_the_share_at_each_lag_and_of_each_cause_adds_up(
    areal_run: MadeUpRun, synchronous_run: MadeUpRun
) -> None:
    recorders = [x.recorder for x in (synchronous_run, areal_run)]
    summaries = [summarise(x, x.end_ns, 1.0, "") for x in recorders]
    comparison = compare(*summaries, *map(phases, recorders))
    for kind in ("lag.share.", "gpu_share.", "gpu_time_share."):
        rows = [row for row in comparison.rows if row.key.startswith(kind)]
        assert len(rows) > 2
        for side in ("a", "b"):
            assert sum(getattr(row, side) for row in rows) == pytest.approx(1.0), (kind, side)
    lag = {row.key: row for row in comparison.rows if row.section == "lag"}
    assert lag["lag.share.0"].a == 1.0
    assert lag["lag.share.0"].error == pytest.approx(100 * (lag["lag.share.0"].b or 0) - 100)
    assert lag["lag.share.2"].a == 0.0, "no trajectory of the synchronous run has lag 2"


def test_a_run_against_itself_is_not_off(areal_run: MadeUpRun) -> None:
    summary = summarise(areal_run.recorder, areal_run.now_ns, 1.0, "")
    told = phases(areal_run.recorder)
    for row in compare(summary, summary, told, told).rows:
        assert row.a == row.b
        assert row.error in (0.0, None), row.key


def test_json_has_everything(summaries: tuple[dict[str, Any], dict[str, Any]]) -> None:
    comparison = compare(*summaries)
    written = json.loads(json.dumps(comparison.to_json()))
    assert written["b"]["scheduler"] == "areal_sched.schedulers.areal:Areal"
    assert len(written["rows"]) == len(comparison.rows)
    assert written["a"]["label"] == "Synchronous"
    assert written["notes"] == []
    assert written["rows"][0] == {
        "section": "whole run", "key": "gpus", "unit": "GPUs", "a": 6, "b": 12,
        "difference": 6, "ratio": 2.0, "error": 100.0, "error_unit": "percent",
    }  # fmt: skip


def test_the_table_for_people(summaries: tuple[dict[str, Any], dict[str, Any]]) -> None:
    text = printed(compare(*summaries))
    assert "Synchronous" in text
    assert "AReaL" in text
    assert "step_time_s.mean  " in text, "the key names its unit"
    assert "lag.mean (versions)" in text
    assert " points" in text
    assert "2 x" in text
    assert "trainer_down" not in text, "zero in both"
    assert "+100.0 %" in text, "twice the GPUs"
    assert "wall_s" not in text, "says nothing of the run"
    assert "gpu_time_share.decode" in text
    noted = compare(*summaries, labels=("real", "[simulated]"), notes=("b.gz: breaks off",))
    text = printed(noted)
    assert "how far [simulated] is off real" in text
    assert "b.gz: breaks off" in text


def test_the_table_shows_phases(areal_run: MadeUpRun) -> None:
    summary = summarise(areal_run.recorder, areal_run.now_ns, 1.0, "")
    told = phases(areal_run.recorder)
    text = printed(compare(summary, summary, told, told))
    for key in (
        "gpu_share.decode",
        "gpu_time_share.decode",
        "trainer_s.minibatch",
        "load_weights_s.mean",
        "reward_s.mean",
        "lag.share.2",
    ):
        assert key in text


def test_summaries_of_runs_without_steps() -> None:
    comparison = compare({"steps": 0, "lag": {"mean": None}}, {"steps": 3})
    assert printed(comparison)
    rows = {row.key: row for row in comparison.rows}
    assert rows["lag.mean"].difference is None
    assert rows["steps"].difference == 3
    assert rows["steps"].ratio is None


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ({"steps": 1}, {"foo": 1}, "the second summary is none: it has no key 'steps'"),
        ([1], {"steps": 1}, "the first summary is none"),
        ({"steps": 1}, {"steps": "3"}, "the second summary: steps = '3' is no number"),
        ({"steps": True}, {"steps": 3}, "the first summary: steps = True is no number"),
        ({"steps": 1}, {"steps": 3, "lag": {"histogram": [1]}}, "lag.histogram = [1]"),
        ({"steps": 1}, {"steps": 3, "lag": {"histogram": {"x": 1}}}, "lag.histogram = {'x'"),
    ],
)
def test_what_is_no_summary(a: Any, b: Any, message: str) -> None:
    with pytest.raises(AnalysisError) as raised:
        compare(a, b)
    assert message in str(raised.value)


def test_the_reference_page_is_up_to_date() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == reference(), (
        "write it again: python -c 'from analysis.compare import reference; "
        'print(reference(), end="")\' > docs/reference/comparison.md'
    )
