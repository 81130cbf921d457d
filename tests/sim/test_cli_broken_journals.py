"""Journals that are not as this program left them: what is wrong, where, and what could be read.

Broken off (with a note, as far as it goes), damaged, of another schema, of a scheduler that is not
here. Cuts at any place: tests/analysis/test_broken_journals.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.sim.cli_cases import Said, say, tree

READ = re.compile(r"[\d,]+ entr(y|ies), [\d,]+ training steps?, [\d.]+ (s|min) of the run")


@pytest.fixture
def broken_off(run_dir: Path, tmp_path: Path) -> Path:
    """A run directory with two thirds of a journal alone."""
    whole = (run_dir / "journal.jsonl.gz").read_bytes()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "journal.jsonl.gz").write_bytes(whole[: len(whole) * 2 // 3])
    return tmp_path / "cut"


def rewritten(run_dir: Path, folder: Path, edit: Callable[[list[str]], None]) -> Path:
    """A run directory with an edited journal alone."""
    text = gzip.decompress((run_dir / "journal.jsonl.gz").read_bytes()).decode()
    lines = text.splitlines()
    edit(lines)
    folder.mkdir()
    path = folder / "journal.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join([*lines, ""]).encode()))
    return folder


def header(change: Callable[[dict[str, Any]], None]) -> Callable[[list[str]], None]:
    def edit(lines: list[str]) -> None:
        first = json.loads(lines[0])
        change(first)
        lines[0] = json.dumps(first)

    return edit


def noted(said: Said, path: Path) -> str:
    """The note of a command that did its work all the same."""
    assert said.code == 0
    (line,) = said.err.splitlines()
    assert line.startswith(f"areal-sim: note: {path}/journal.jsonl.gz: breaks off after line ")
    assert READ.search(line)
    assert "figures cover the first " in line
    return line.removeprefix("areal-sim: note: ")


def test_replay_says_that_a_journal_breaks_off_and_what_is_identical(
    broken_off: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = say(capsys, "replay", broken_off)
    assert said.code == 2, "that it replays to its end was not shown"
    assert "entries replayed through areal_sched.schedulers.areal:Areal, all commands" in said.out
    assert said.err.startswith(f"areal-sim: {broken_off}/journal.jsonl.gz: breaks off after line")
    assert READ.search(said.err)
    entries = re.search(r"([\d,]+) entries replayed", said.out)
    assert entries is not None
    assert f"read: {entries[1]} entries" in said.err


def test_a_difference_before_a_journal_breaks_off_is_a_difference(
    broken_off: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert say(capsys, "replay", broken_off, "--scheduler", "synchronous").code == 1


def test_figures_and_compare_go_as_far_as_a_journal_does(
    broken_off: Path, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    said = say(capsys, "compare", run_dir, broken_off, "--json", "--out", out)
    note = noted(said, broken_off)
    report = json.loads(said.out)
    assert report["notes"] == [note]
    assert json.loads((out / "comparison.json").read_text()) == report
    assert (out / "comparison.png").stat().st_size > 10_000
    rows = {row["key"]: row for row in report["rows"]}
    assert 0 < rows["steps"]["b"] < rows["steps"]["a"] == 6
    assert sum(x["b"] for key, x in rows.items() if key.startswith("gpu_time_share.")) == (
        pytest.approx(1.0)
    )
    said = say(capsys, "compare", broken_off, run_dir)
    noted(said, broken_off)
    assert "breaks off after line" in said.out, "in the table too"

    noted(say(capsys, "figures", broken_off), broken_off)
    summary = json.loads((broken_off / "summary.json").read_text())
    assert summary["steps"] == rows["steps"]["b"]
    assert (broken_off / "timeline.png").exists()


@pytest.mark.parametrize("lines", [1, 3])
def test_what_breaks_off_at_once_is_too_little(
    lines: int, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = rewritten(run_dir, tmp_path / "cut", lambda text: text.__delitem__(slice(lines, None)))
    path = folder / "journal.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-1])
    before = tree(tmp_path)
    for arguments in (("figures", folder), ("compare", folder, run_dir), ("compare", path, path)):
        said = say(capsys, *arguments)
        assert (said.code, said.out) == (2, "")
        assert f"breaks off after line {lines}; read: " in said.err
        assert said.err.endswith("that is too little to work with\n")
    assert tree(tmp_path) == before
    said = say(capsys, "replay", folder)
    assert said.code == 2
    assert f"{lines - 1 or 'nothing but the header'}" in said.err


def wrong(
    folder: Path, run_dir: Path, capsys: pytest.CaptureFixture[str], *commands: str
) -> list[str]:
    """What these commands say of a journal that none of them can work with."""
    before = tree(folder)
    told = []
    for command in commands:
        arguments = (command, run_dir, folder) if command == "compare" else (command, folder)
        said = say(capsys, *arguments)
        assert (said.code, said.out) == (2, ""), command
        assert str(folder / "journal.jsonl.gz") in said.err
        told.append(said.err)
    assert tree(folder) == before
    return told


ALL = ("replay", "figures", "compare")


def test_a_damaged_line_is_named_with_what_is_before_it(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = rewritten(run_dir, tmp_path / "bad", lambda lines: lines.__setitem__(150, "[1,2"))
    for line in wrong(folder, run_dir, capsys, *ALL):
        assert ", line 151: " in line
        assert READ.search(line)


def test_a_message_of_a_later_version_is_named_with_what_is_before_it(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def later(lines: list[str]) -> None:
        lines.insert(120, '[1,["paused_by_user",1]]')

    folder = rewritten(run_dir, tmp_path / "later", later)
    for line in wrong(folder, run_dir, capsys, *ALL):
        assert ", line 121: unknown message code 'paused_by_user'; read before it: " in line
        assert READ.search(line)


@pytest.mark.parametrize("which", ["version", "fields"])
def test_another_schema_is_refused_at_the_header(
    which: str, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(first: dict[str, Any]) -> None:
        if which == "version":
            first["version"] = 2
        else:
            # As many fields, two of them swapped: without the header it would be misread.
            first["codes"]["finished"][2:4] = ["generated_tokens", "weight_version"]

    folder = rewritten(run_dir, tmp_path / "other", header(change))
    for line in wrong(folder, run_dir, capsys, *ALL):
        assert "read: nothing but the header (run 'small', scheduler 'areal_sched.sch" in line
        if which == "version":
            assert "version 2; this program reads 'areal-lab journal' version 1" in line
        else:
            assert "codes.finished = ['RolloutFinished', 'rollout_id', 'generated_to" in line


def test_codes_that_only_one_side_knows_are_no_harm(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(first: dict[str, Any]) -> None:
        del first["codes"]["timer"]
        first["codes"]["paused"] = ["Paused", "by"]

    folder = rewritten(run_dir, tmp_path / "other", header(change))
    assert say(capsys, "replay", folder).code == 0


def test_a_scheduler_that_is_not_here_keeps_only_replay_from_working(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = header(lambda first: first.__setitem__("scheduler", "their_lab.rules:Theirs"))
    folder = rewritten(run_dir, tmp_path / "theirs", other)
    (line,) = wrong(folder, run_dir, capsys, "replay")
    assert "names a scheduler that cannot be built here" in line
    assert "No module named 'their_lab'" in line
    assert READ.search(line)
    assert say(capsys, "replay", folder, "--scheduler", "areal").code == 0
    said = say(capsys, "compare", run_dir, folder, "--json")
    assert (said.code, said.err) == (0, "")
    assert json.loads(said.out)["b"]["scheduler"] == "their_lab.rules:Theirs"
    assert say(capsys, "figures", folder).code == 0


def test_the_note_of_a_run_that_was_stopped_by_an_error(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(lines: list[str]) -> None:
        at = next(i for i in range(150, len(lines)) if '["finished"' in lines[i])
        now_ns, event, *_ = json.loads(lines[at])
        lines[at] = json.dumps([now_ns, event, [], "InvalidCommand: no such server"])

    folder = rewritten(run_dir, tmp_path / "stopped", stop)
    said = say(capsys, "compare", run_dir, folder, "--json")
    assert said.code == 0
    assert "the run was stopped by InvalidCommand: no such server" in said.err
