"""Two summaries side by side."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from analysis.compare import compare
from analysis.errors import AnalysisError
from analysis.summary import KEYS, summarise
from tests.analysis.made_up_run import MadeUpRun


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
    lag = rows["lag.mean"]
    assert lag.a == 0
    assert lag.ratio is None
    assert lag.difference == lag.b
    assert rows["gpu_time_share.decode"].b == b["gpu_time_share"]["decode"]
    numbers = {key.name for key in KEYS} - {
        "name", "scheduler", "seed", "config_sha256", "journal_sha256",
        "lag.histogram", "gpu_time_share",
    }  # fmt: skip
    assert numbers == {key for key in rows if not key.startswith("gpu_time_share.")}


def test_json_has_everything(summaries: tuple[dict[str, Any], dict[str, Any]]) -> None:
    comparison = compare(*summaries)
    written = json.loads(json.dumps(comparison.to_json()))
    assert written["b"]["scheduler"] == "areal_sched.schedulers.areal:Areal"
    assert len(written["rows"]) == len(comparison.rows)
    assert written["rows"][0] == {
        "key": "gpus", "unit": "GPUs", "a": 6, "b": 12, "difference": 6, "ratio": 2.0,
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
    ],
)
def test_what_is_no_summary(a: Any, b: Any, message: str) -> None:
    with pytest.raises(AnalysisError) as raised:
        compare(a, b)
    assert message in str(raised.value)
