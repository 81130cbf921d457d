"""The recorder: live and from a journal the same, compact, and honest about broken journals."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.columns import FLUSH_ROWS, Columns
from analysis.errors import AnalysisError
from analysis.facts import RunFacts
from analysis.recorder import RunRecorder, journal_sha256, read_run
from analysis.summary import summarise
from areal_sched import JournalError, Phase, Rollout, RolloutsInterrupted
from tests.analysis.by_hand import FACTS, recorder, rollout
from tests.analysis.made_up_run import MadeUpRun

RUNS: dict[str, dict[str, Any]] = {
    "areal": {"fail_share": 0.15, "eta": 2},
    "areal_draining": {"scheduler": "areal", "options": {"mode": "drain", "barrier": False}},
    "bounded_lag": {"scheduler": "bounded_lag", "max_lag": 1},
    "one_step_off": {},
    "partial_rollout": {},
    "synchronous": {"colocated": True, "servers": 6, "training_gpus": 6},
}


def columns_of(recorder: RunRecorder) -> dict[str, list[Any]]:
    tables = {
        "trajectories": recorder.trajectories,
        "server_spans": recorder.server_spans,
        "trainer_spans": recorder.trainer_spans,
        "interrupts": recorder.interrupts,
    }
    result = {
        f"{t}.{name}": table[name].tolist() for t, table in tables.items() for name in table.names
    }
    for name in ("phase", "settled_ns", "train_ns", "consumed_version"):
        result[name] = recorder.settlement(name).tolist()
    return result


@pytest.mark.parametrize("name", RUNS)
def test_a_journal_gives_what_the_live_recorder_has(name: str, tmp_path: Path) -> None:
    run = MadeUpRun(**{"scheduler": name, **RUNS[name]})
    read = read_run(run.write(tmp_path / "journal.jsonl.gz"))
    assert columns_of(read) == columns_of(run.recorder)
    assert read.facts == run.facts
    assert read.end_ns == run.recorder.end_ns == run.now_ns
    assert read.covered_ns == run.now_ns
    assert not read.truncated
    assert read.error is None
    assert summarise(read, run.now_ns, 1.0, "") == summarise(run.recorder, run.now_ns, 1.0, "")


def test_columns_hold_what_the_rollouts_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rollout is in the columns once, with its own fields, in the order it was settled."""
    kept: list[tuple[Any, ...]] = []
    fields = (
        "rollout_id", "generated_tokens", "server_id", "start_ns", "finish_ns", "ready_ns",
        "first_version", "last_version", "interruptions",
        "phase", "settled_ns", "train_ns", "consumed_version",
    )  # fmt: skip
    live = RunRecorder.settled

    class Spy(RunRecorder):
        def settled(self, rollouts: Any) -> None:
            for x in rollouts:
                values = [int(getattr(x, name)) for name in fields]
                kept.append((*values, x.group.group_id, x.group.prompt_tokens, x.reward))
            live(self, rollouts)

    monkeypatch.setattr("tests.analysis.made_up_run.RunRecorder", Spy)
    run = MadeUpRun("areal", fail_share=0.15)
    table = run.recorder.trajectories
    columns = [table[x] if x in table.names else run.recorder.settlement(x) for x in fields]
    columns += [table["group_id"], table["prompt_tokens"], table["reward"]]
    assert list(zip(*(x.tolist() for x in columns), strict=True)) == kept
    assert {Phase.TRAINED, Phase.FAILED} <= set(run.recorder.settlement("phase").tolist())


def test_started_rollouts_are_trained_discarded_or_live(areal_run: MadeUpRun) -> None:
    recorder = areal_run.recorder
    ids = np.sort(recorder.trajectories["rollout_id"])
    assert ids.tolist() == list(range(len(ids)))
    settled = recorder.settlement("settled_ns")
    final = np.isin(recorder.settlement("phase"), (Phase.TRAINED, Phase.FAILED, Phase.DROPPED))
    assert ((settled >= 0) == final).all()
    assert (~final).any(), "the run should end with live rollouts"


def test_at_most_sixty_bytes_a_trajectory() -> None:
    recorder = RunRecorder(FACTS)
    assert recorder.trajectories.row_bytes <= 60
    batch = [rollout(i) for i in range(2 * FLUSH_ROWS)]
    recorder.settled(batch)
    table = recorder.trajectories
    assert sum(table[name].nbytes for name in table.names) == table.row_bytes * len(batch)


@pytest.mark.parametrize("counts", [(1, FLUSH_ROWS - 2, 1), (FLUSH_ROWS, 1), (0, 3), (1,) * 5])
def test_rows_survive_any_batching(counts: tuple[int, ...]) -> None:
    recorder = RunRecorder(FACTS)
    made: list[Rollout] = []
    for call, count in enumerate(counts):
        batch = [
            rollout(len(made) + i, Phase.FAILED, settled_ns=call, start_ns=10**15 + i)
            for i in range(count)
        ]
        recorder.settled(batch)
        made += batch
        if call == 1:
            assert len(recorder.trajectories["rollout_id"]) == len(made)  # a look in between
    assert recorder.trajectories["rollout_id"].tolist() == list(range(len(made)))
    assert recorder.trajectories["start_ns"].tolist() == [x.start_ns for x in made]
    assert recorder.settlement("settled_ns").tolist() == [x.settled_ns for x in made]


def test_what_became_numbers_is_let_go() -> None:
    recorder = RunRecorder(FACTS)
    row = (0, RolloutsInterrupted(server_id=1, weight_version=0, progress=()))
    events = [RolloutsInterrupted(server_id=i, weight_version=0, progress=()) for i in range(2)]
    for _ in range(FLUSH_ROWS - 2):
        recorder.interrupted(*row)
    made = [rollout(0)]
    for event in events:
        recorder.interrupted(5, event)
    recorder.settled(made * FLUSH_ROWS)
    held = [x for table in (recorder.interrupts, recorder.trajectories) for x in table._pending]
    assert held == []
    assert recorder.interrupts["server_id"][-2:].tolist() == [0, 1]


def test_columns_are_read_only_and_name_what_does_not_fit() -> None:
    columns = Columns({"x": ("i4", "real")})
    columns.extend([1, 2])
    with pytest.raises(ValueError, match="read-only"):
        columns["x"][0] = 3
    columns.append(2**31)
    with pytest.raises(AnalysisError, match="column 'x'"):
        columns["x"]


def test_the_hash_is_the_writers(areal_run: MadeUpRun, tmp_path: Path) -> None:
    path = areal_run.write(tmp_path / "j")
    assert journal_sha256(path) == areal_run.sha256


def test_the_hash_of_no_journal(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="No such file"):
        journal_sha256(tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(JournalError, match="not a gzip file"):
        journal_sha256(tmp_path / "text")


def test_a_journal_that_breaks_off_is_read_to_where_all_devices_are_known(
    areal_run: MadeUpRun, tmp_path: Path
) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(areal_run.journal[: len(areal_run.journal) * 2 // 3])
    read = read_run(path)
    assert read.truncated
    assert 0 < read.end_ns == read.covered_ns < areal_run.now_ns
    last = [
        int(read.server_spans["end_ns"][read.server_spans["server_id"] == server].max())
        for server in range(5)
    ]
    assert read.end_ns == min(*last, int(read.trainer_spans["end_ns"].max()))
    summary = summarise(read, read.end_ns, 1.0, "")
    assert 0 < summary["steps"] < 8


def edit(path: Path, change: Callable[[list[Any]], None]) -> Path:
    lines = [json.loads(x) for x in gzip.decompress(path.read_bytes()).splitlines()]
    change(lines)
    text = "".join(json.dumps(x) + "\n" for x in lines)
    path.write_bytes(gzip.compress(text.encode()))
    return path


def test_a_run_stopped_by_an_error(areal_run: MadeUpRun, tmp_path: Path) -> None:
    def stop(lines: list[Any]) -> None:
        at = len(lines) * 2 // 3
        at = next(i for i in range(at, len(lines)) if lines[i][1][0] == "finished")
        now_ns, event, *_ = lines[at]
        lines[at] = [now_ns, event, [], "InvalidCommand: no such server"]

    read = read_run(edit(areal_run.write(tmp_path / "j"), stop))
    assert read.error == "InvalidCommand: no such server"
    assert int(read.settlement("settled_ns").max()) < areal_run.now_ns
    summarise(read, read.end_ns, 1.0, "")


def test_a_journal_that_contradicts_itself_names_the_line(
    areal_run: MadeUpRun, tmp_path: Path
) -> None:
    def twice(lines: list[Any]) -> None:
        lines.insert(2, lines[1])

    path = edit(areal_run.write(tmp_path / "j"), twice)
    with pytest.raises(JournalError, match="line 3: server 0 joined twice"):
        read_run(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("run.gpus", None, "run.gpus is missing"),
        ("run.gpus", "many", "run.gpus = 'many'"),
        ("run.gpus", 3, "run.gpus = 3: generation and training need"),
        ("run.servers", 99, "run.servers = 99 of 2 GPUs do not fit"),
        ("run", None, "no key 'run'"),
        ("limits.train_batch_rollouts", 0, "train_batch_rollouts"),
        ("limits", None, "limits"),
    ],
)
def test_wrong_headers_name_the_field(
    areal_run: MadeUpRun, tmp_path: Path, key: str, value: Any, message: str
) -> None:
    def change(lines: list[Any]) -> None:
        *path, last = key.split(".")
        place = lines[0]
        for name in path:
            place = place[name]
        if value is None:
            del place[last]
        else:
            place[last] = value

    path = edit(areal_run.write(tmp_path / "j"), change)
    with pytest.raises(AnalysisError, match=r"j: header: |j: the header") as raised:
        read_run(path)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("areal_sched.schedulers.areal:Areal", "AReaL"),
        ("m:OneStepOff", "One step off"),
        ("m:Synchronous", "Synchronous"),
        ("m:APRIL", "APRIL"),
        ("", ""),
    ],
)
def test_scheduler_names_for_titles(path: str, name: str) -> None:
    facts = {x: getattr(FACTS, x) for x in RunFacts.__dataclass_fields__}
    assert RunFacts(**{**facts, "scheduler": path}).scheduler_name == name


def test_end_of_a_run_without_word_of_it() -> None:
    made = recorder({0: [("idle", 5)], 1: [("idle", 9)]}, [("idle", 7)])
    assert made.end_ns == 9
    assert made.covered_ns == 5
    assert RunRecorder(FACTS).end_ns == 0
