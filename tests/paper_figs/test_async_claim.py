"""The asynchronous claim's table, from recorded runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from paper_figs import async_claim as figure


def test_the_recorded_runs_give_the_table_beside_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert figure.main([]) == 0
    checked = figure.RECORDED.parents[1] / "async_claim.txt"
    assert capsys.readouterr().out == checked.read_text()


def test_a_goal_that_is_not_reached_has_no_time() -> None:
    row = {"held_out": [[0, 0.1], [2, 0.89]], "time_s": [1.0, 2.0]}
    assert figure.seconds_to_goal(row) is None
    assert figure.seconds_to_goal({**row, "held_out": [[0, 0.1], [2, 0.9]]}) == 2.0
    assert figure.seconds_to_goal({**row, "held_out": [[0, 0.95]]}) == 0.0


@pytest.mark.parametrize("text", ["", "{}\n", "no json\n"])
def test_what_is_no_result_is_refused(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(text)
    assert figure.main(["--results", str(path)]) == 2
    assert "results.jsonl" in capsys.readouterr().err
