from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import (
    completion_curves,
    decode_steps,
    measured,
    phase_times,
    trainer_mfu,
    weight_sync,
)
from benchmarks.measured import Case, DataError, Fit, Report, read_rows, summary_line, text_of

COMMANDS = (completion_curves, decode_steps, phase_times, trainer_mfu, weight_sync)


def case(predicted: float, *, fitted: bool = False, name: str = "a", quantity: str = "s") -> Case:
    return Case(name, quantity, 10.0, predicted, fitted)


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "x.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_errors_are_signed_and_relative() -> None:
    assert case(9.0).error == pytest.approx(-0.1)
    assert case(12.5).error == pytest.approx(0.25)


def test_medians_are_of_absolute_errors_and_keep_fitted_apart() -> None:
    cases = [
        case(8.0, name="low"),
        case(11.0),
        case(13.0, name="high"),
        case(10.0, fitted=True),
        case(99.0, quantity="other"),
    ]
    assert summary_line(cases, False, "s") == (
        "s, predicted: 3 rows, absolute error median 20.0%, worst 30.0% (high)"
    )
    assert summary_line(cases, True, "s").startswith("s, fitted: 1 rows, absolute error median 0.0")
    assert summary_line(cases, True, "other") == "other, fitted: no rows"


def test_a_report_has_every_case_every_fit_and_what_was_left_out() -> None:
    report = Report(
        "title",
        [case(9.0), case(12_000.0, fitted=True)],
        [Fit("alpha", "2 ms", "every fifth row")],
        [("b", "no lengths")],
        ["remark"],
    )
    lines = text_of(report).splitlines()
    assert lines[0] == "title"
    assert lines[2].split() == [
        *("case", "quantity", "measured", "predicted", "error", "basis", "note"),
    ]
    assert lines[3].split() == ["a", "s", "10", "9", "-10.0%", "predicted"]
    assert lines[4].split() == ["a", "s", "10", "12,000", "+119900.0%", "fitted"]
    assert "fitted: alpha = 2 ms, on every fifth row" in lines
    assert "left out: b: no lengths" in lines
    assert lines[-1] == "remark"


def test_a_report_says_when_nothing_was_fitted() -> None:
    assert "nothing was fitted" in text_of(Report("t", [case(9.0)])).splitlines()


def test_a_report_needs_a_case() -> None:
    with pytest.raises(DataError, match="no case could be compared"):
        text_of(Report("title", []))


def test_numbers_are_read_with_their_place(tmp_path: Path) -> None:
    (row,) = read_rows(file(tmp_path, "a,b,c\n1.5, x ,\n"), ("a", "b"))
    assert row.positive("a") == 1.5
    assert row.text("b") == "x"
    assert row.maybe("c") is None
    with pytest.raises(DataError, match=r"x\.csv:2: column 'b': 'x': expected a number"):
        row.number("b")


@pytest.mark.parametrize("text", ["nan", "inf", "1e999"])
def test_numbers_are_finite(tmp_path: Path, text: str) -> None:
    (row,) = read_rows(file(tmp_path, f"a\n{text}\n"), ("a",))
    with pytest.raises(DataError, match="expected a number"):
        row.number("a")


@pytest.mark.parametrize("text", ["0", "-1"])
def test_what_must_be_positive_is(tmp_path: Path, text: str) -> None:
    (row,) = read_rows(file(tmp_path, f"a\n{text}\n"), ("a",))
    with pytest.raises(DataError, match="must be above 0"):
        row.maybe("a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b\n1\n", "x.csv:1: missing column 'a'"),
        ("a\n", "x.csv: has no rows"),
        ("", "x.csv:1: missing column 'a'"),
        ("a,b\n1,2\n3\n", "x.csv:3: 1 fields, the header has 2"),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(file(tmp_path, text), ("a",))
    assert str(caught.value) == message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv: cannot be read: No such file"):
        read_rows(tmp_path / "nowhere.csv", ("a",))


@pytest.mark.parametrize("module", COMMANDS, ids=lambda module: module.__name__)
def test_without_the_data_a_command_says_so_in_one_line(
    module: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = module.__name__.rpartition(".")[2]  # type: ignore[attr-defined]
    for folder, message in (
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path, "cannot be read"),
    ):
        assert module.main(["--data", str(folder)]) == 2  # type: ignore[attr-defined]
        captured = capsys.readouterr()
        assert captured.out == ""
        (line,) = captured.err.splitlines()
        assert line.startswith(f"python -m benchmarks.{name}: {tmp_path}")
        assert message in line


def test_the_data_is_looked_for_beside_the_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert measured.ROOT.parent / "shared" == measured.DEFAULT_DATA
    monkeypatch.setattr(measured, "DEFAULT_DATA", tmp_path / "nowhere")
    assert measured.command("x", None, lambda data: Report("t", []), []) == 2


def test_a_command_prints_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = measured.command(
        "x", None, lambda data: Report("title", [case(9.0)]), ["--data", str(tmp_path)]
    )
    assert found == 0
    assert capsys.readouterr().out.startswith("title\n")
