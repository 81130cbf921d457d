"""The run directory: every file it promises, and that they agree with each other."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path
from typing import Any

import matplotlib.image
import pandas as pd
import pytest

import analysis.rundir
from analysis.recorder import journal_sha256, read_run
from analysis.rundir import check_out_dir, read_summary
from areal_sched import JournalReader, Limits, load, replay
from areal_sched.errors import ConfigError, InvalidCommand
from areal_sim.config import config_sha256, load_config, resolved_toml
from areal_sim.rundir import Progress, simulate
from tests.sim.cli_cases import config, say, tree

FILES = re.findall(r"``([\w.]+/?)``", analysis.rundir.__doc__ or "")


@pytest.fixture(scope="module")
def summary(run_dir: Path) -> dict[str, Any]:
    return read_summary(run_dir)


def test_it_holds_exactly_the_files_its_docstring_lists(run_dir: Path) -> None:
    assert len(FILES) == 9
    assert sorted(path.name for path in run_dir.iterdir()) == sorted(x.strip("/") for x in FILES)
    assert all(size > 0 for size in tree(run_dir).values())


def test_pictures_open_and_show_something(run_dir: Path) -> None:
    pictures = [run_dir / "timeline.png", *(run_dir / "figures").iterdir()]
    assert len(pictures) >= 4
    for path in pictures:
        picture = matplotlib.image.imread(path)
        assert min(picture.shape[:2]) > 200
        assert picture.std() > 0.01, path


def test_the_trace_is_one_that_perfetto_opens(run_dir: Path) -> None:
    trace = json.loads(gzip.decompress((run_dir / "trace.json.gz").read_bytes()))
    events = trace["traceEvents"]
    assert {"ph", "pid", "name"} <= set(events[0])
    assert sum(event["ph"] == "X" for event in events) > 20


def test_tables_agree_with_the_summary(run_dir: Path, summary: dict[str, Any]) -> None:
    steps = pd.read_parquet(run_dir / "steps.parquet")
    assert len(steps) == summary["steps"] == 6
    trajectories = pd.read_parquet(run_dir / "trajectories.parquet")
    assert trajectories["rollout_id"].is_unique
    lost = summary["discarded_trajectories"] + summary["live_rollouts"]
    assert len(trajectories) == summary["trajectories"] + lost
    assert summary["trajectories"] == 6 * 8


def test_accounts_add_up_to_all_gpu_time(run_dir: Path, summary: dict[str, Any]) -> None:
    accounts = pd.read_csv(run_dir / "accounts.csv").set_index("cause")["gpu_seconds"]
    total = accounts.pop("total")
    assert accounts.sum() == pytest.approx(total, abs=1e-6)
    assert total == pytest.approx(summary["gpu_hours"] * 3600)
    assert total == pytest.approx(summary["simulated_hours"] * 3600 * summary["gpus"])


def test_the_journal_is_the_one_the_summary_names_and_replays(
    run_dir: Path, summary: dict[str, Any]
) -> None:
    path = run_dir / "journal.jsonl.gz"
    assert journal_sha256(path) == summary["journal_sha256"]
    reader = JournalReader(path)
    limits = Limits(**reader.header["limits"])
    scheduler = load(reader.header["scheduler"], limits, reader.header["options"])
    assert replay(reader.entries(), scheduler, limits) > 200
    assert not reader.truncated
    assert read_run(path).error is None


def test_the_resolved_configuration_makes_the_same_run_again(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], summary: dict[str, Any]
) -> None:
    resolved = shutil.copy(run_dir / "config.toml", tmp_path / "small.toml")
    assert config_sha256(load_config(Path(resolved))) == summary["config_sha256"]
    again = json.loads(say(capsys, "run", resolved, "--json").out)
    assert again["journal_sha256"] == summary["journal_sha256"]


# ---- simulate ----------------------------------------------------------------------------------


def test_progress_is_told_and_ends_at_the_last_step(tmp_path: Path) -> None:
    told: list[Progress] = []
    outcome = simulate(load_config(config(tmp_path)), name="a", progress=told.append)
    assert (outcome.interrupted, outcome.out_dir) == (False, None)
    assert (told[-1].steps, told[-1].wanted) == (6, 6)
    assert told[-1].simulated_s == pytest.approx(outcome.summary["simulated_hours"] * 3600)
    assert told[-1].wall_s > 0
    assert tree(tmp_path) == {"small.toml": len((tmp_path / "small.toml").read_bytes())}


class Greedy:
    """A scheduler with a bug: at the first finished answer it starts one that does not exist."""

    def __init__(self, limits: Limits) -> None:
        self._good = load("areal", limits)

    def decide(self, event: Any, view: Any) -> Any:
        from areal_sched import ResumeRollouts, RolloutFinished

        yield from self._good.decide(event, view)
        if isinstance(event, RolloutFinished):
            yield ResumeRollouts(rollout_ids=(12345,), server_id=0)  # type: ignore[arg-type]


GREEDY = f"scheduler.class={__name__}:Greedy"


def test_a_run_that_breaks_off_leaves_a_journal_that_ends_with_the_culprit(tmp_path: Path) -> None:
    out = tmp_path / "run"
    broken = load_config(config(tmp_path), [GREEDY])
    with pytest.raises(InvalidCommand, match="12345"):
        simulate(broken, name="a", out_dir=out)
    assert sorted(path.name for path in out.iterdir()) == ["config.toml", "journal.jsonl.gz"]
    assert (out / "config.toml").read_text() == resolved_toml(broken)
    reader = JournalReader(out / "journal.jsonl.gz")
    entries = list(reader.entries())
    assert not reader.truncated
    assert [entry.error for entry in entries[:-1]] == [None] * (len(entries) - 1)
    assert "InvalidCommand" in str(entries[-1].error)
    limits = Limits(**reader.header["limits"])
    assert replay(entries, Greedy(limits), limits) == len(entries)
    with pytest.raises(ConfigError, match=r"no run directory \(.*summary\.json\)"):
        read_summary(out)


def test_the_command_says_what_broke_the_run_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = say(capsys, "run", config(tmp_path), "--set", GREEDY, "--quiet")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("areal-sim: ResumeRollouts(")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("content", [None, "a file", "a folder in it"])
def test_a_folder_that_has_something_in_it_is_refused(tmp_path: Path, content: str | None) -> None:
    out = tmp_path / "run"
    check_out_dir(out)
    out.mkdir()
    check_out_dir(out)
    if content == "a file":
        (out / "x").write_text("")
    elif content:
        (out / "x").mkdir()
    else:
        out.rmdir()
        out.write_text("a file itself")
    with pytest.raises(ConfigError, match="not empty"):
        check_out_dir(out)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no run directory"),
        ("{", "Expecting"),
        ("[]", "not a summary"),
        ("{}", "no key 'steps'"),
        ('{"steps": 1, "wall_s": "long"}', "wall_s = 'long': expected a number"),
    ],
)
def test_summaries_that_are_none(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "summary.json").write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        read_summary(tmp_path)
    assert str(tmp_path) in str(caught.value)
