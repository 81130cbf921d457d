"""Bad input: one line on standard error that says what and where, exit code 2, nothing left behind.

What exactly is said of configurations is tested in test_config*; here it is that every command
gets it said, and that nothing comes through as a traceback.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.sim.cli_cases import SMALL, Said, config, say, spawn, tree
from traces.data import sample_path

GARBAGE = bytes((37 * n * n + 11 * n) % 251 for n in range(3000))
"""Neither text nor gzip; it has control characters that would play with a terminal."""


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: object) -> str:
    """The one line that a command line gives, checked for form and for leaving nothing behind."""
    before = tree(folder)
    said = say(capsys, *arguments)
    return checked(said, folder, before)


def checked(said: Said, folder: Path, before: dict[str, int]) -> str:
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("areal-sim: ")
    assert said.err.endswith("\n")
    line = said.err[:-1]
    assert line.isprintable(), line
    assert tree(folder) == before, "something was left behind"
    return line


# ---- run ---------------------------------------------------------------------------------------

OVERRIDES: dict[str, tuple[Sequence[str], str]] = {
    "unknown key": (["limits.etta=3"], "limits.etta: no such key (did you mean 'eta'?)"),
    "unknown table": (["simm.x=1"], "simm"),
    "a word for a number": (["limits.eta=yes"], 'limits.eta = "yes": expected a whole number'),
    "a fraction for a count": (["workload.steps=1.5"], "expected a whole number"),
    "a number for a flag": (["cluster.colocated=1"], "cluster.colocated = 1"),
    "no GPU generates": (["cluster.generation_share=0.01"], "would fit: "),
    "no rank fits": (["sim.trainer.tensor_parallel=2", "sim.trainer.pipeline_parallel=2"], "fit"),
    "three GPUs a server": (["sim.server.tensor_parallel=3"], "would do: 1, 2, 4"),
    "no such GPU": (["cluster.gpu=H1000"], "did you mean 'H100'?"),
    "no such model": (["model.name=8b"], "no such model"),
    "no such scheduler": (["scheduler.class=arealy"], "did you mean 'areal'?"),
    "no such module": (["scheduler.class=nowhere:Class"], "No module named 'nowhere'"),
    "no such option": (["scheduler.unity=group"], "did you mean 'unit'?"),
    "7B does not fit on RTX4090": (["model.name=7b", "cluster.gpu=RTX4090"], "too much"),
    "32B does not fit on shared GPUs": (["model.name=32b", "cluster.colocated=true"], "too much"),
    "a negative seed": (["sim.seed=-1"], "sim.seed = -1"),
    "no value": (["limits.eta"], "expected key=value"),
    "no such trace": (["workload.trace=nowhere.csv"], "no such file"),
    "eta 0 and one step off": (
        ["scheduler.class=one_step_off", "limits.eta=0"],
        "needs eta >= 1",
    ),
}


@pytest.mark.parametrize("name", list(OVERRIDES))
def test_run_refuses_a_bad_value(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides, said = OVERRIDES[name]
    changes = [part for override in overrides for part in ("--set", override)]
    arguments = ["run", config(tmp_path), "--out", tmp_path / "run", *changes]
    assert said in refused(capsys, tmp_path, *arguments)


TEXTS: dict[str, tuple[bytes, str]] = {
    "unknown table": (SMALL.encode() + b"\n[simm]\nx = 1\n", "bad.toml:25:2: simm"),
    "wrong type": (SMALL.replace("eta = 2", "eta = [2]").encode(), "bad.toml:22:1: limits.eta"),
    "not TOML": (b"[cluster\nnodes = 1\n", "bad.toml:1:9: not TOML"),
    "not UTF-8": (GARBAGE, "not UTF-8"),
    "nothing at all": (b"", "cluster"),
}


@pytest.mark.parametrize("name", list(TEXTS))
def test_run_refuses_a_bad_file_and_says_where(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, said = TEXTS[name]
    path = tmp_path / "bad.toml"
    path.write_bytes(text)
    assert said in refused(capsys, tmp_path, "run", path, "--out", tmp_path / "run")


def test_run_refuses_what_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing.toml"
    line = refused(capsys, tmp_path, "run", missing, "--out", tmp_path / "run")
    assert line == f"areal-sim: {missing}: cannot be read: No such file or directory"
    assert "Is a directory" in refused(capsys, tmp_path, "run", tmp_path)


@pytest.mark.parametrize("name", ["garbage.csv", "text.csv", "short.csv", "folder"])
def test_run_and_serve_refuse_a_trace_that_cannot_be_read(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "garbage.csv").write_bytes(GARBAGE)
    (tmp_path / "text.csv").write_text("hello,world\n1,2\n")
    (tmp_path / "short.csv").write_text(sample_path("azure.csv").read_text() + "2024-01-01\n")
    (tmp_path / "folder").mkdir()
    small, trace = config(tmp_path), tmp_path / name
    out = tmp_path / "run"
    line = refused(capsys, tmp_path, "run", small, "--set", f"workload.trace={trace}", "--out", out)
    assert name in line
    assert name in refused(capsys, tmp_path, "serve", trace, "--config", small)


@pytest.mark.parametrize("kind", ["folder", "file", "below a file"])
def test_run_refuses_an_out_folder_that_is_in_use(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").write_text("mine")
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / "run" if kind == "below a file" else tmp_path / kind
    line = refused(capsys, tmp_path, "run", config(tmp_path), "--out", out)
    assert str(out) in line
    assert ("not empty" in line) == (kind != "below a file")


# ---- journals ----------------------------------------------------------------------------------

Edit = Callable[[dict[str, Any], list[str]], None]


def put(key: str, value: Any) -> Edit:
    return lambda header, lines: header.__setitem__(key, value)


JOURNALS: dict[str, tuple[Edit, str]] = {
    "no limits": (lambda header, lines: header.pop("limits"), "the header has no 'limits'"),
    "other limits": (put("limits", {"etta": 1}), "etta"),
    "limits of text": (put("limits", {"train_batch_rollouts": "x"}), "train_batch_rollouts = 'x'"),
    "options of text": (put("options", "ab"), "the header is wrong"),
    "unknown option": (put("options", {"unity": 1}), "scheduler.unity"),
    "a number as scheduler": (put("scheduler", 3), "scheduler.class = '3'"),
    "no scheduler there": (put("scheduler", "nowhere:Class"), "nowhere"),
    "another version": (put("version", 7), "version 7"),
    "another format": (put("format", "diary"), "diary"),
    "a broken line": (lambda header, lines: lines.insert(50, "{{{"), "line 52"),
    "an unknown code": (lambda header, lines: lines.insert(50, '[1,["zz",1]]'), "line 52"),
    "an empty line": (lambda header, lines: lines.insert(50, ""), "line 52"),
}


@pytest.mark.parametrize("name", list(JOURNALS))
def test_replay_refuses_a_bad_journal(
    name: str, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit, said = JOURNALS[name]
    text = gzip.decompress((run_dir / "journal.jsonl.gz").read_bytes()).decode()
    first, *lines = text.splitlines()
    header = json.loads(first)
    edit(header, lines)
    path = tmp_path / "journal.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join([json.dumps(header), *lines, ""]).encode()))
    line = refused(capsys, tmp_path, "replay", path)
    assert said in line
    assert str(path) in line


UNREADABLE = {
    "missing": None,
    "random bytes": GARBAGE,
    "empty": b"",
    "text": b"hello\n",
    "gzip of nothing": gzip.compress(b""),
    "gzip of a list": gzip.compress(b"[]\n"),
    "gzip of random bytes": gzip.compress(GARBAGE),
}


@pytest.mark.parametrize("name", list(UNREADABLE))
def test_replay_and_figures_refuse_what_is_no_journal(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "journal.jsonl.gz"
    content = UNREADABLE[name]
    if content is not None:
        path.write_bytes(content)
    for arguments in (("replay", path), ("replay", tmp_path), ("figures", tmp_path)):
        assert str(path) in refused(capsys, tmp_path, *arguments)


def test_replay_refuses_bad_changes(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for change, said in (
        (["--set", "unit"], "expected OPTION=VALUE"),
        (["--set", "unit=goup"], "did you mean 'group'?"),
        (["--set", "unity=group"], "did you mean 'unit'?"),
        (["--scheduler", "arealy"], "did you mean 'areal'?"),
        (["--set", "scheduler.class=arealy"], "did you mean 'areal'?"),
        (["--set", "limits.etta=1"], "--set limits.etta: no such limit (did you mean 'eta'?)"),
        (["--set", "limits.eta=-1"], "limits.eta = -1"),
        (["--set", "limits.eta=much"], "limits.eta = 'much'"),
        (["--set", "cluster.nodes=2"], "replay changes limits.* and scheduler.* alone"),
    ):
        assert said in refused(capsys, run_dir, "replay", run_dir, *change)


# ---- run directories ---------------------------------------------------------------------------


@pytest.mark.parametrize("summary", ["{", "[]", "{}", '{"name": 1}'])
def test_compare_refuses_a_folder_with_a_wrong_summary(
    summary: str, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(run_dir / "journal.jsonl.gz", folder)
    (folder / "summary.json").write_text(summary)
    for pair in ((folder, run_dir), (run_dir, folder)):
        assert "summary" in refused(capsys, tmp_path, "compare", *pair)


def test_compare_refuses_to_draw_without_a_journal(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(run_dir / "summary.json", folder)
    picture = ("--picture", tmp_path / "both.png")
    line = refused(capsys, tmp_path, "compare", run_dir, folder, *picture)
    assert str(folder / "journal.jsonl.gz") in line
    missing = tmp_path / "missing"
    assert str(missing) in refused(capsys, tmp_path, "compare", run_dir, missing)
    gone = tmp_path / "gone.jsonl.gz"
    assert str(gone) in refused(capsys, tmp_path, "compare", run_dir, gone)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert str(empty) in refused(capsys, tmp_path, "compare", empty, run_dir)
    full = refused(capsys, tmp_path, "compare", run_dir, run_dir, "--out", run_dir)
    assert "exists and is not empty" in full
    assert str(missing) in refused(capsys, tmp_path, "figures", missing)


def test_figures_leaves_a_directory_with_a_bad_header_as_it_was(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = gzip.decompress((run_dir / "journal.jsonl.gz").read_bytes())
    first, rest = text.split(b"\n", 1)
    header = json.loads(first)
    del header["run"]
    path = tmp_path / "journal.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(header).encode() + b"\n" + rest))
    assert "no key 'run'" in refused(capsys, tmp_path, "figures", tmp_path)


# ---- serve and demo ----------------------------------------------------------------------------


def test_serve_refuses_what_it_cannot_send(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = config(tmp_path)
    head = "arrived_at,num_prefill_tokens,num_decode_tokens\n"
    (tmp_path / "long.csv").write_text(head + "0.0,100000000,5\n")
    (tmp_path / "before.csv").write_text(head + "-5.0,100,5\n")
    (tmp_path / "empty.csv").write_text(head)
    azure = sample_path("azure.csv")
    for arguments, said in (
        ([tmp_path / "missing.csv"], "cannot be read"),
        ([sample_path("workload.jsonl")], "no arrival times"),
        ([tmp_path / "long.csv"], "KV tokens"),
        ([tmp_path / "before.csv"], "before.csv:2"),
        ([tmp_path / "empty.csv"], "no records"),
        ([azure, "--servers", "0"], "--servers 0"),
        ([azure, "--limit", "-1"], "--limit -1"),
        ([azure, "--format", "azur"], "azur"),
        ([azure, "--format", "mooncake"], "azure.csv:1"),
    ):
        assert said in refused(capsys, tmp_path, "serve", *arguments, "--config", small)
    assert "missing.toml" in refused(
        capsys, tmp_path, "serve", azure, "--config", tmp_path / "missing.toml"
    )


def test_demo_refuses_no_steps_and_a_file_as_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert "workload.steps" in refused(
        capsys, tmp_path, "demo", "--steps", 0, "--out", tmp_path / "demo"
    )
    assert "file" in refused(capsys, tmp_path, "demo", "--steps", 1, "--out", tmp_path / "file")


# ---- as a program ------------------------------------------------------------------------------


def test_the_program_says_it_in_one_line_too(tmp_path: Path) -> None:
    """In a process of its own, with the progress bar on: no bar, no traceback, exit code 2."""
    small = config(tmp_path)
    before = tree(tmp_path)
    out = ("--out", tmp_path / "run")
    done = spawn("run", small, "--set", "model.name=7b", "--set", "cluster.gpu=RTX4090", *out)
    line = checked(Said(done.returncode, done.stdout, done.stderr), tmp_path, before)
    assert "a RTX4090 has 24.2 GB usable" in line


def test_words_that_are_no_command_get_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["fly"], ["run"], ["run", "a.toml", "--seed", "x"], []):
        with pytest.raises(SystemExit) as ended:
            say(capsys, *words)
        assert ended.value.code == 2
        assert "usage: areal-sim" in capsys.readouterr().err
