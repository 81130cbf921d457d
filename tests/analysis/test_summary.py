"""The summary: recomputed the slow way, documented, the same each time."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from analysis.errors import AnalysisError
from analysis.recorder import RunRecorder, read_run
from analysis.summary import (
    KEYS,
    WALL_CLOCK_KEYS,
    generated_tokens_between,
    in_flight_mean,
    keys_of,
    reference,
    summarise,
)
from areal_sched import Phase
from tests.analysis.by_hand import FACTS, recorder, rollout
from tests.analysis.made_up_run import MadeUpRun

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reference" / "summary.md"


def rows_of(made: RunRecorder) -> list[dict[str, Any]]:
    table = made.trajectories
    columns = {name: table[name].tolist() for name in table.names}
    for name in ("phase", "settled_ns", "train_ns", "consumed_version"):
        columns[name] = made.settlement(name).tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@pytest.mark.parametrize("name", ["areal_run", "synchronous_run"])
def test_figures_are_what_the_rows_give(name: str, request: pytest.FixtureRequest) -> None:
    run: MadeUpRun = request.getfixturevalue(name)
    summary = summarise(run.recorder, run.now_ns, 2.5, run.sha256)
    rows = rows_of(run.recorder)
    trained = [row for row in rows if row["phase"] == Phase.TRAINED]
    ends = sorted({row["settled_ns"] for row in trained})
    first = summary["transient_steps"]
    assert 1 <= first <= len(ends) / 2
    start_ns = ends[first - 1]
    seconds = (ends[-1] - start_ns) / 1e9
    steady = [row for row in trained if row["settled_ns"] > start_ns]
    lags = [row["consumed_version"] - row["first_version"] for row in steady]
    phases = Counter(row["phase"] for row in rows)

    assert summary["steps"] == len(ends) == run.facts.steps
    assert summary["simulated_hours"] == run.now_ns / 3600e9
    assert summary["gpu_hours"] == pytest.approx(run.facts.gpus * run.now_ns / 3600e9)
    assert summary["trajectories"] == len(trained)
    assert summary["failed_trajectories"] == phases[Phase.FAILED]
    assert summary["dropped_trajectories"] == phases[Phase.DROPPED]
    assert summary["discarded_trajectories"] == phases[Phase.FAILED] + phases[Phase.DROPPED]
    assert summary["live_rollouts"] == len(rows) - sum(
        phases[x] for x in (Phase.TRAINED, Phase.FAILED, Phase.DROPPED)
    )
    assert summary["interruptions"] == sum(row["interruptions"] for row in rows)
    assert summary["step_time_s"]["mean"] == pytest.approx(seconds / (len(ends) - first))
    assert summary["effective_throughput_tokens_per_s"] == pytest.approx(
        sum(row["generated_tokens"] for row in steady) / seconds
    )
    assert summary["lag"] == {
        "mean": sum(lags) / len(lags),
        "max": max(lags),
        "histogram": {str(lag): count for lag, count in sorted(Counter(lags).items())},
    }
    spans = run.recorder.server_spans
    assert summary["generated_tokens"] == spans["generated_tokens"].sum()
    assert summary["recomputed_tokens"] == spans["recomputed_tokens"].sum()
    assert sum(summary["gpu_time_share"].values()) == pytest.approx(1)
    assert summary["trajectories_per_wall_s"] == len(trained) / 2.5
    assert summary["realtime_factor"] == pytest.approx(run.now_ns / 2.5e9)
    held = 0
    for row in rows:
        left = row["finish_ns"] if row["finish_ns"] >= 0 else row["settled_ns"]
        left = ends[-1] if left < 0 else left
        held += max(min(left, ends[-1]) - max(row["start_ns"], start_ns), 0)
    assert summary["rollouts_in_flight_mean"] == pytest.approx(held / (seconds * 1e9))


def test_the_two_runs_differ_where_they_should(
    areal_run: MadeUpRun, synchronous_run: MadeUpRun
) -> None:
    a, s = (summarise(x.recorder, x.now_ns, 1.0, "") for x in (areal_run, synchronous_run))
    assert a["interruptions"] > 0 == s["interruptions"]
    assert a["failed_trajectories"] > 0 == s["discarded_trajectories"]
    assert a["lag"]["max"] > 0 == s["lag"]["max"]
    assert a["recomputed_tokens"] > 0 == s["recomputed_tokens"]
    assert s["gpu_time_share"]["switch"] > 0 == a["gpu_time_share"]["switch"]


def test_tokens_of_a_window() -> None:
    made = recorder(
        {0: [("generate", 100, 0, 0, 1000), ("idle", 100)], 1: [("generate", 200, 0, 0, 500)]},
        [("idle", 200)],
    )
    assert generated_tokens_between(made, 0, 200) == 1500
    assert generated_tokens_between(made, 50, 150) == 500 + 250
    assert generated_tokens_between(made, 120, 120) == 0


def test_rollouts_in_flight_by_hand() -> None:
    made = RunRecorder(FACTS)
    s = 10**9
    made.settled([rollout(0, start_ns=0, finish_ns=10 * s, settled_ns=99 * s)])
    made.settled([rollout(1, Phase.FAILED, start_ns=5 * s, settled_ns=15 * s)])
    made.ended(20 * s, [rollout(2, Phase.RUNNING, start_ns=18 * s)])
    assert in_flight_mean(made, 0, 20 * s) == (10 + 10 + 2) / 20
    assert in_flight_mean(made, 4 * s, 8 * s) == (4 + 3) / 4
    assert in_flight_mean(made, 5, 5) is None


def test_a_run_without_a_step() -> None:
    made = recorder({0: [("generate", 100, 0, 0, 7)]}, [("idle", 100)])
    summary = summarise(made, 100, 0.0, "")
    assert summary["steps"] == summary["transient_steps"] == 0
    assert summary["generated_tokens"] == 7
    for key in (
        "step_time_s.mean",
        "effective_throughput_tokens_per_s",
        "generated_tokens_per_s",
        "rollouts_in_flight_mean",
        "idle_share.generation",
        "lag.mean",
        "realtime_factor",
    ):
        assert keys_of(summary)[key] is None
    assert summary["gpu_time_share"]["decode"] == 2 / 7


def test_the_end_is_checked(areal_run: MadeUpRun) -> None:
    with pytest.raises(AnalysisError, match="before"):
        summarise(areal_run.recorder, areal_run.now_ns + 1, 1.0, "")


def test_the_same_run_gives_the_same_json(areal_run: MadeUpRun, tmp_path: Path) -> None:
    first = summarise(areal_run.recorder, areal_run.now_ns, 1.0, areal_run.sha256)
    read = read_run(areal_run.write(tmp_path / "journal"))
    second = summarise(read, areal_run.now_ns, 3.0, areal_run.sha256)
    for key in WALL_CLOCK_KEYS:
        assert first.pop(key) != second.pop(key)
    assert json.dumps(first) == json.dumps(second)


def test_every_key_is_documented(areal_run: MadeUpRun) -> None:
    summary = summarise(areal_run.recorder, areal_run.now_ns, 1.0, areal_run.sha256)
    whole = {"gpu_time_share", "lag.histogram"}

    def leaves(value: Any, name: str) -> list[str]:
        if isinstance(value, dict) and name not in whole:
            return [x for key in value for x in leaves(value[key], f"{name}.{key}".lstrip("."))]
        return [name]

    assert sorted(leaves(summary, "")) == sorted(key.name for key in KEYS)
    assert all(value is not None for value in keys_of(summary).values())
    assert {key.name for key in KEYS if "Wall clock" in key.meaning} == set(WALL_CLOCK_KEYS)


def test_the_reference_page_is_up_to_date() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == reference(), (
        "write it again: python -c 'from analysis.summary import reference; "
        'print(reference(), end="")\' > docs/reference/summary.md'
    )
