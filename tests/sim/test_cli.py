"""The commands of ``areal-sim``, each doing what it is for. Bad input: test_cli_bad_input."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest

from areal_sched import JournalReader
from areal_sim.cli import main
from areal_sim.commands.compare import labels_of
from tests.sim.cli_cases import command, config, say, tree
from traces import load as load_trace
from traces.data import sample_path

KEYS = {
    "steps": None,
    "simulated_hours": None,
    "step_time_s": ("mean", "p50", "p99"),
    "effective_throughput_tokens_per_s": None,
    "generated_tokens_per_s": None,
    "recomputed_tokens": None,
    "idle_share": ("generation", "training"),
    "lag": ("mean", "max", "histogram"),
    "interruptions": None,
    "discarded_trajectories": None,
    "trajectories": None,
    "wall_s": None,
    "trajectories_per_wall_s": None,
    "realtime_factor": None,
    "gpu_hours": None,
    "journal_sha256": None,
}
"""What ``run --json`` promises at least."""

WALL_CLOCK = ("wall_s", "trajectories_per_wall_s", "realtime_factor")


def machine_free(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in summary.items() if key not in WALL_CLOCK}


# ---- run ---------------------------------------------------------------------------------------


def test_run_prints_json_alone_with_every_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = say(capsys, "run", config(tmp_path), "--json")
    assert (said.code, said.err) == (0, "")
    summary = json.loads(said.out)
    for key, inner in KEYS.items():
        for value in [summary[key][name] for name in inner] if inner else [summary[key]]:
            assert value is not None, key
    assert summary["steps"] == 6
    assert sum(summary["lag"]["histogram"].values()) > 0
    assert sorted(tree(tmp_path)) == ["small.toml"], "without --out nothing is written"


def test_run_prints_a_table_and_where_the_picture_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = say(capsys, "run", config(tmp_path), "--out", tmp_path / "a" / "b")
    assert said.code == 0
    for text in ("training steps", "GPU-hours", "generation idle", "lag, mean", "timeline.png"):
        assert text in said.out
    assert "6/6" in said.err, "the progress bar"
    assert (tmp_path / "a" / "b" / "summary.json").exists()
    said = say(capsys, "run", config(tmp_path), "--quiet")
    assert (said.code, said.err) == (0, "")
    assert "nothing was kept" in said.out


def test_the_seed_and_overrides_change_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], run_dir: Path
) -> None:
    def hash_of(*arguments: object) -> str:
        said = say(capsys, "run", config(tmp_path), "--json", *arguments)
        return str(json.loads(said.out)["journal_sha256"])

    kept = json.loads((run_dir / "summary.json").read_text())["journal_sha256"]
    assert hash_of() == hash_of("--seed", 1) == hash_of("--set", "sim.seed=1") == kept
    others = [hash_of("--seed", 2), hash_of("--set", "limits.eta=0")]
    assert len({kept, *others}) == 3


def test_the_run_can_be_given_an_empty_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    said = say(capsys, "run", config(tmp_path), "--quiet", "--out", tmp_path / "run")
    assert said.code == 0
    assert (tmp_path / "run" / "summary.json").exists()


# ---- compare -----------------------------------------------------------------------------------


def test_compare_two_run_directories(
    run_of: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = run_of("synchronous"), run_of("areal")
    before = tree(a), tree(b)
    picture = tmp_path / "both.png"
    said = say(capsys, "compare", a, b, "--picture", picture)
    assert (said.code, said.err) == (0, "")
    assert "step_time_s.mean" in said.out
    assert "trainer_s.minibatch" in said.out
    assert min(matplotlib.image.imread(picture).shape[:2]) > 200
    assert (tree(a), tree(b)) == before, "comparing writes nothing into them"

    rows = json.loads(say(capsys, "compare", a, b, "--json").out)["rows"]
    values = {row["key"]: row for row in rows}
    for key in ("simulated_hours", "gpu_hours", "lag.mean"):
        first, second = (_at(json.loads((run / "summary.json").read_text()), key) for run in (a, b))
        assert (values[key]["a"], values[key]["b"]) == (first, second)
        assert values[key]["difference"] == pytest.approx(second - first)
    assert values["simulated_hours"]["ratio"] < 1, "AReaL takes less time"


def _at(summary: dict[str, Any], key: str) -> Any:
    value: Any = summary
    for part in key.split("."):
        value = value[part]
    return value


def test_compare_simulates_configurations_and_mixes_both_kinds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], run_dir: Path
) -> None:
    small = config(tmp_path)
    other = config(tmp_path, small.read_text().replace("eta = 2", "eta = 0"), "strict.toml")
    picture = tmp_path / "both.png"
    said = say(capsys, "compare", run_dir, other, "--json", "--picture", picture)
    assert (said.code, said.err) == (0, "")
    report = json.loads(said.out)
    assert (report["a"]["name"], report["b"]["name"]) == ("small", "strict")
    assert picture.exists()
    same = json.loads(say(capsys, "compare", small, small, "--json", "--seed", 3).out)
    assert same["a"]["seed"] == same["b"]["seed"] == 3
    assert same["a"]["journal_sha256"] == same["b"]["journal_sha256"]


def test_compare_takes_journals_and_leaves_what_it_found(
    run_of: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = run_of("synchronous"), run_of("areal") / "journal.jsonl.gz"
    plain = tmp_path / "copy.gz"
    shutil.copy(b, plain)
    out = tmp_path / "new" / "out"
    said = say(capsys, "compare", a, b, "--json", "--out", out)
    assert (said.code, said.err) == (0, "")
    report = json.loads(said.out)
    assert report == json.loads((out / "comparison.json").read_text())
    assert min(matplotlib.image.imread(out / "comparison.png").shape[:2]) > 200
    assert sorted(tree(out)) == ["comparison.json", "comparison.png"]
    rows = {row["key"]: row for row in report["rows"]}
    step = rows["step_time_s.mean"]
    assert step["error"] == pytest.approx(100 * (step["b"] - step["a"]) / step["a"])
    for key in ("trainer_s.minibatch", "response_s.mean", "reward_s.mean", "lag.share.1"):
        assert rows[key]["b"] > 0, key
    again = json.loads(say(capsys, "compare", a, plain, "--json").out)
    for mine, other in zip(again["rows"], report["rows"], strict=True):
        assert mine == other or mine["key"] in WALL_CLOCK
    assert again["b"]["label"] == "copy"


def test_compare_knows_phases_of_a_configuration_as_of_its_journal(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = say(capsys, "compare", run_dir, config(tmp_path), "--json")
    for row in json.loads(said.out)["rows"]:
        if row["key"] not in WALL_CLOCK:
            assert row["a"] == row["b"], row["key"]


def test_compare_takes_a_directory_without_journal_or_without_summary(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("summary.json", "journal.jsonl.gz"):
        (tmp_path / name).mkdir()
        shutil.copy(run_dir / name, tmp_path / name)
        said = say(capsys, "compare", run_dir, tmp_path / name, "--json")
        assert said.code == 0
        rows = {row["key"]: row for row in json.loads(said.out)["rows"]}
        assert rows["step_time_s.mean"]["error"] == 0
        known = name == "journal.jsonl.gz"
        assert (rows["reward_s.mean"]["b"] is not None) == known
        assert ("no journal, so no phases are known" in said.err) == (not known)


@pytest.mark.parametrize(
    ("a", "b", "labels"),
    [
        ("runs/home", "runs/split", ("home", "split")),
        ("x/real/journal.jsonl.gz", "x/sim/journal.jsonl.gz", ("real", "sim")),
        ("x/run", "y/run", ("x/run", "y/run")),
        ("real.jsonl.gz", "home.toml", ("real", "home")),
        ("a.toml", "./a.toml", ("A", "B")),
        ("a/1.5b.toml", "a/7b", ("1.5b", "7b")),
    ],
)
def test_labels_tell_the_runs_apart(a: str, b: str, labels: tuple[str, str]) -> None:
    assert labels_of(Path(a), Path(b)) == labels


# ---- figures -----------------------------------------------------------------------------------


def test_figures_makes_the_same_tables_again_from_the_journal(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but the pictures' own bytes are compared: with the journal alone, and beside the rest."""
    for kept in (["journal.jsonl.gz"], [path.name for path in run_dir.iterdir()]):
        copy = tmp_path / str(len(kept))
        copy.mkdir()
        for name in kept:
            if (run_dir / name).is_file():
                shutil.copy(run_dir / name, copy)
        said = say(capsys, "figures", copy)
        assert (said.code, said.err) == (0, "")
        for name in ("steps.parquet", "trajectories.parquet", "accounts.csv"):
            assert (copy / name).read_bytes() == (run_dir / name).read_bytes(), name
        trace = "trace.json.gz"
        mine, theirs = (gzip.decompress((x / trace).read_bytes()) for x in (copy, run_dir))
        assert mine == theirs
        summaries = [json.loads((x / "summary.json").read_text()) for x in (copy, run_dir)]
        assert machine_free(summaries[0]) == machine_free(summaries[1])
        for picture in ("timeline.png", "figures/steps.png"):
            pixels = [matplotlib.image.imread(x / picture) for x in (copy, run_dir)]
            assert pixels[0].shape == pixels[1].shape
            assert abs(pixels[0] - pixels[1]).max() == 0


# ---- replay ------------------------------------------------------------------------------------


def test_replay_passes_for_a_directory_and_a_journal(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (run_dir, run_dir / "journal.jsonl.gz"):
        said = say(capsys, "replay", path)
        assert (said.code, said.err) == (0, "")
        assert "all commands identical" in said.out
    said = say(capsys, "replay", run_dir, "--scheduler", "areal", "--set", "unit=rollout")
    assert said.code == 0


@pytest.mark.parametrize(
    "change",
    [
        ["--set", "unit=group"],
        ["--set", "routing=round_robin"],
        ["--set", 'routing="round_robin"', "--set", "unit=rollout"],
        ["--scheduler", "synchronous"],
    ],
    ids=lambda change: change[1],
)
def test_replay_through_another_scheduler_names_the_first_difference(
    run_dir: Path, change: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = say(capsys, "replay", run_dir, *change)
    assert (said.code, said.err) == (1, "")
    first, journal, replayed = said.out.splitlines()
    assert "replay diverged at entry " in first
    assert " ns) on " in first
    assert "StartRollouts(" in journal
    assert journal.split(":", 1)[1] != replayed.split(":", 1)[1]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        (["--set", "limits.max_rollouts_in_flight=4"], "StartRollouts"),
        (["--set", "limits.eta=0"], "StartRollouts"),
        (["--set", "scheduler.unit=group"], "StartRollouts"),
        (["--set", "scheduler.class=synchronous"], "StartRollouts"),
        (["--scheduler", "areal_sched.schedulers.synchronous:Synchronous"], "StartRollouts"),
    ],
    ids=lambda change: change[1] if isinstance(change, list) else change,
)
def test_one_changed_coefficient_diverges_with_both_decisions_shown(
    changes: list[str], key: str, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = say(capsys, "replay", run_dir, *changes)
    assert (said.code, said.err) == (1, "")
    first, journal, replayed = said.out.splitlines()
    where = re.search(r"diverged at entry (\d+) \(line (\d+), t = (\d+) ns\) on (\w+)\(", first)
    assert where is not None
    entry, line, now_ns, event = where.groups()
    entries = list(JournalReader(run_dir / "journal.jsonl.gz").entries())
    named = entries[int(entry)]
    assert (named.line, named.now_ns) == (int(line), int(now_ns))
    assert type(named.event).__name__ == event
    assert journal.startswith("  journal:  ")
    assert replayed.startswith("  replayed: ")
    assert key in journal + replayed
    assert journal.split(":", 1)[1] != replayed.split(":", 1)[1]


def test_a_change_that_changes_no_decision_replays(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for change in ("limits.max_failures_per_group=9", "scheduler.unit=rollout", "limits.eta=2"):
        assert say(capsys, "replay", run_dir, "--set", change).code == 0
    said = say(capsys, "replay", run_dir, "--set", "limits.eta=inf")
    assert said.code in (0, 1), "unbounded is a value"


# ---- serve -------------------------------------------------------------------------------------

WITH_ARRIVALS = ["azure.csv", "burstgpt.csv", "mooncake.csv", "mooncake.jsonl", "vidur.csv"]


@pytest.mark.parametrize("name", WITH_ARRIVALS)
def test_serve_sends_every_request_of_a_sample_trace(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("serve", sample_path(name), "--config", config(tmp_path))
    said = say(capsys, *arguments, "--json")
    assert (said.code, said.err) == (0, "")
    result = json.loads(said.out)
    table = load_trace(sample_path(name))
    assert result["requests"] == len(table) > 20
    tokens = result["response_tokens_per_s"] * result["makespan_s"]
    assert tokens == pytest.approx(int(table["response_tokens"].sum()))
    latency = result["latency_s"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
    assert 0 < result["busy_share"] <= 1
    shown = say(capsys, *arguments)
    assert shown.code == 0
    assert f"{name} through 2 servers" in shown.out


def test_serve_takes_servers_a_limit_and_a_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("serve", sample_path("azure.csv"), "--config", config(tmp_path), "--json")
    one, many = (json.loads(say(capsys, *arguments, "--servers", n).out) for n in (1, 8))
    assert (one["servers"], many["servers"]) == (1, 8)
    assert one["latency_s"]["mean"] > many["latency_s"]["mean"]
    few = json.loads(say(capsys, *arguments, "--limit", 5, "--format", "azure").out)
    assert few["requests"] == 5


# ---- the program -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run", "compare", "replay", "figures", "serve", "demo"])
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"areal-sim {name}" in capsys.readouterr().out


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        command("run", config(tmp_path), "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.close()
    error = writer.stderr.read()
    writer.stderr.close()
    assert (writer.wait(60), error) == (0, b"")


def test_it_starts_without_the_heavy_libraries() -> None:
    """Help must come at once: neither numpy nor pandas, matplotlib or torch are imported for it."""
    code = (
        "import sys; from areal_sim.cli import parser; parser().format_help();"
        "print([x for x in ('numpy', 'pandas', 'matplotlib', 'torch') if x in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
