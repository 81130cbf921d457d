"""The fault suite's command line and its table, without a training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.faults.__main__ import main
from benchmarks.faults.books import Books
from benchmarks.faults.scenarios import SCENARIOS
from benchmarks.faults.table import Results, Row, RunRow


def test_there_are_fifty_faults_at_least() -> None:
    assert sum(fault.faults for scenario in SCENARIOS for fault in scenario.faults) >= 50
    whats = [fault.what for scenario in SCENARIOS for fault in scenario.faults]
    assert len(set(whats)) == len(whats)
    names = [scenario.name for scenario in SCENARIOS]
    assert len(set(names)) == len(names)


def test_an_unknown_scenario_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--only", "weather"])
    assert ended.value.code == 2
    assert "'weather'" in capsys.readouterr().err


def test_the_table(tmp_path: Path) -> None:
    books = Books(entries=9, replayed=9, steps=1, started=8, trained=4, in_flight=4)
    results = Results(
        rows=[
            Row(run="a", what="kill | twice", faults=2, step=3, noticed="at\nonce", seconds=1.25),
            Row(run="a", what="never came", verdict="not tried"),
        ],
        runs=[RunRow(run="a", books=books), RunRow(run="b", skipped="no root")],
    )
    assert not results.sound
    assert results.totals["faults injected"] == 2
    assert results.totals["lost uncounted"] == 0
    assert results.totals["journals that replay"] == 1
    results.write(tmp_path)
    text = (tmp_path / "faults.md").read_text()
    assert "| kill \\| twice (2 faults) | 3 | at once | 1.2 | 0 / 0 | ok |" in text
    assert "skipped: no root" in text
    document = json.loads((tmp_path / "faults.json").read_text())
    assert [row["verdict"] for row in document["faults"]] == ["ok", "not tried"]


def test_an_uncounted_trajectory_shows_in_the_totals() -> None:
    books = Books(uncounted=[3], twice=[4, 5])
    totals = Results(runs=[RunRow(run="a", books=books)]).totals
    assert (totals["lost uncounted"], totals["trained twice"]) == (1, 2)
