"""The checks of the fault suite: a run in order passes, and one that is not is caught."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from areal_real.folder import RunFolder
from areal_sched import commands as c
from areal_sched.events import RolloutFinished, TrainStepFinished
from areal_sched.journal import Entry, JournalReader, JournalWriter
from benchmarks.faults.books import Books, compare, count, read_books
from benchmarks.faults.tail import JournalTail, unusual
from tests.real.run.fakes import MadeUpBackend, Troubles
from tests.real.run.test_run_laws import config_of, to_the_end

JOURNAL = "journal.jsonl.gz"
STEPS = 5


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by parts that are made up, some of which were lost."""
    folder = tmp_path_factory.mktemp("sound")
    config = config_of({"class": "areal"}, steps=STEPS, servers=2, every=1)
    troubles = Troubles(server_dies=0.004, reward_fails=0.05)
    to_the_end(config, folder, MadeUpBackend(RunFolder(folder), 3, troubles))
    metrics = (folder / "metrics.jsonl").read_text()
    # The made-up trainer tells nothing of its batches.
    batch = config.train_batch_rollouts
    metrics = metrics.replace("}\n", f', "trainer/sequences": {batch}}}\n')
    (folder / "metrics.jsonl").write_text(metrics)
    return folder


@pytest.fixture
def run(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "run")
    return tmp_path / "run"


def doctor(folder: Path, change: Callable[[list[Entry]], list[Entry]]) -> None:
    """Write the journal anew, with other entries."""
    reader = JournalReader(folder / JOURNAL)
    entries = change(list(reader.entries()))
    header = {x: reader.header[x] for x in reader.header if x not in ("format", "version", "codes")}
    with (folder / JOURNAL).open("wb") as stream:
        writer = JournalWriter(stream, header)
        for entry in entries:
            writer.record(entry.now_ns, entry.event, entry.commands, entry.error)
        writer.close()


def test_a_sound_run_balances(run: Path) -> None:
    books = read_books(run, ended=True)
    assert books.problems == []
    assert books.steps == STEPS
    assert books.trained == STEPS * 6
    assert books.started == books.trained + books.dropped + books.failed + books.in_flight
    assert books.replayed == books.entries > 0


def test_a_trajectory_trained_twice_is_caught(run: Path) -> None:
    entries = list(JournalReader(run / JOURNAL).entries())
    batches = [x for e in entries for x in e.commands if isinstance(x, c.StartTrainStep)]
    again = batches[0].rollout_ids[0]

    def change(entries: list[Entry]) -> list[Entry]:
        return [_with_batch(entry, batches[1], again) for entry in entries]

    doctor(run, change)
    books = read_books(run, ended=True)
    assert books.twice == [again]
    assert any("trained twice" in x for x in books.problems)
    assert any("does not replay" in x for x in books.problems)


def _with_batch(entry: Entry, batch: c.StartTrainStep, again: int) -> Entry:
    changed = c.StartTrainStep(
        weight_version=batch.weight_version, rollout_ids=(again, *batch.rollout_ids[1:])
    )
    commands = tuple(changed if x == batch else x for x in entry.commands)
    return Entry(entry.line, entry.now_ns, entry.event, commands, entry.error)


def test_an_event_that_went_missing_is_caught(run: Path) -> None:
    def change(entries: list[Entry]) -> list[Entry]:
        place = next(i for i, e in enumerate(entries) if isinstance(e.event, RolloutFinished))
        return entries[:place] + entries[place + 1 :]

    doctor(run, change)
    assert any("does not replay" in x for x in read_books(run, ended=True).problems)


def test_a_trajectory_that_was_lost_is_uncounted(run: Path) -> None:
    """It was started by the journal's lines, and the state has never heard of it."""
    reader = JournalReader(run / JOURNAL)
    entries = list(reader.entries())
    started = next(e for e in entries if any(isinstance(x, c.StartRollouts) for x in e.commands))
    known = next(x for x in started.commands if isinstance(x, c.StartRollouts))
    more = dataclasses.replace(known, rollout_ids=(9999,))
    books = Books()
    changed = Entry(started.line, started.now_ns, started.event, (more,))
    open_ids, _ = count(books, [*entries, changed], 6)
    assert 9999 in open_ids
    tail = JournalTail(run / JOURNAL)
    compare(books, open_ids, tail.read())
    tail.close()
    assert books.uncounted == [9999]
    assert books.problems


def test_tokens_that_the_store_lost_are_caught(run: Path) -> None:
    with sqlite3.connect(run / "trajectories.sqlite") as store:
        rows = store.execute("SELECT rollout_id FROM segments LIMIT 1").fetchall()
        assert rows, "the store is empty, and this test proves nothing"
        store.execute("UPDATE segments SET ids = substr(ids, 5) WHERE rollout_id = ?", rows[0])
    store.close()
    assert any("store" in x for x in read_books(run, ended=True).problems)


def test_a_step_without_its_row_is_caught(run: Path) -> None:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], *lines[3:]]))
    assert any("metrics" in x for x in read_books(run, ended=True).problems)


def test_the_tail_follows_a_journal_as_it_grows(run: Path, tmp_path: Path) -> None:
    data = (run / JOURNAL).read_bytes()
    path = tmp_path / "growing.gz"
    tail = JournalTail(path)
    assert tail.read().weight_version == 0
    for end in range(0, len(data), 997):
        path.write_bytes(data[:end])
        tail.read()
    path.write_bytes(data)
    assert tail.read().weight_version == STEPS
    whole = [(e.now_ns, e.event, e.commands) for e in JournalReader(run / JOURNAL).entries()]
    assert tail.entries == whole
    assert tail.common(whole[:7]) == 7
    assert unusual([x for x in whole if isinstance(x[1], TrainStepFinished)]) == ""
    tail.close()
