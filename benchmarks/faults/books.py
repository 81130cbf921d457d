"""The books of a run: what became of every trajectory, by its journal, its store and its metrics.

The counts are taken from the journal's lines by themselves; the state that a replay ends in is the
second opinion. A trajectory that the two do not place alike is uncounted.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from areal_sched import commands as c
from areal_sched.controller import Controller
from areal_sched.errors import ArealError
from areal_sched.events import RolloutFailed, RolloutFinished, TrainStepFailed, TrainStepFinished
from areal_sched.journal import Entry, JournalReader
from areal_sched.limits import Limits
from areal_sched.load import load
from areal_sched.replay import replay
from areal_sched.state import ClusterState
from benchmarks.faults.drive import metrics

JOURNAL = "journal.jsonl.gz"
STORE = "trajectories.sqlite"
_TOKEN_BYTES = 4


@dataclass(slots=True)
class Books:
    """What became of the trajectories of a run.

    Attributes:
        entries: of the journal.
        steps: training steps done.
        started, trained, dropped, failed, in_flight: trajectories.
        replayed: entries that the scheduler, asked again, decides alike.
        uncounted: trajectories that are in none of these, or in two.
        twice: trajectories trained more than once.
        problems: everything that does not balance, in words.
    """

    entries: int = 0
    steps: int = 0
    started: int = 0
    trained: int = 0
    dropped: int = 0
    failed: int = 0
    in_flight: int = 0
    replayed: int = 0
    uncounted: list[int] = field(default_factory=list)
    twice: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_books(folder: Path, *, ended: bool = False) -> Books:
    """Check a run's books, while it goes on or after its end.

    Args:
        folder: the run directory.
        ended: nothing writes there any more, so that journal, metrics and store have to agree.
    """
    books = Books()
    reader = JournalReader(folder / JOURNAL)
    entries = list(reader.entries())
    header = reader.header
    limits = Limits(**header["limits"])
    open_ids, finished = count(books, entries, limits.train_batch_rollouts)

    def scheduler() -> object:
        return load(header["scheduler"], limits, header["options"])

    try:
        books.replayed = replay(entries, scheduler(), limits)  # type: ignore[arg-type]
    except ArealError as exc:
        books.problems.append(f"the journal does not replay: {exc}")
        return books
    if books.replayed != len(entries):
        books.problems.append(f"{books.replayed} of {len(entries)} entries replay")
    controller = Controller(scheduler(), limits, record=None)  # type: ignore[arg-type]
    for entry in entries[: books.replayed]:
        with contextlib.suppress(ArealError):  # the last one, as it was recorded
            controller.handle(entry.event, now_ns=entry.now_ns)
    compare(books, open_ids, controller.state)
    check_store(books, folder / STORE, controller.state, finished, ended=ended)
    if ended:
        check_metrics(books, folder)
        if reader.truncated:
            books.problems.append("the journal breaks off")
    return books


def count(books: Books, entries: list[Entry], batch_size: int) -> tuple[set[int], dict[int, int]]:
    """Fill in the counts, from the entries alone.

    Args:
        books: to fill in.
        entries: of the journal.
        batch_size: trajectories of a step.

    Returns:
        Trajectories that were started and not settled, and tokens of each that finished.
    """
    started: set[int] = set()
    trained: Counter[int] = Counter()
    gone: dict[str, set[int]] = {"dropped": set(), "failed": set()}
    tokens: dict[int, int] = {}
    batch: tuple[int, ...] = ()
    for entry in entries:
        event = entry.event
        if isinstance(event, TrainStepFinished):
            books.steps += 1
            trained.update(batch)
            if len(batch) != batch_size:
                books.problems.append(f"step {books.steps} trained {len(batch)} trajectories")
            batch = ()
        elif isinstance(event, TrainStepFailed):
            batch = ()
        elif isinstance(event, RolloutFinished):
            tokens[int(event.rollout_id)] = event.generated_tokens
        elif isinstance(event, RolloutFailed) and event.rollout_id not in gone["dropped"]:
            gone["failed"].add(int(event.rollout_id))
        for command in entry.commands:
            if isinstance(command, c.StartRollouts):
                again = started.intersection(command.rollout_ids)
                if again:
                    books.problems.append(f"started twice: {sorted(again)}")
                started.update(map(int, command.rollout_ids))
            elif isinstance(command, c.StartTrainStep):
                batch = tuple(map(int, command.rollout_ids))
            elif isinstance(command, c.DropRollouts):
                gone["dropped"].update(map(int, command.rollout_ids))
    books.entries = len(entries)
    books.started = len(started)
    books.trained = len(trained)
    books.dropped, books.failed = len(gone["dropped"]), len(gone["failed"])
    books.twice = sorted(x for x, times in trained.items() if times > 1)
    settled = [*trained, *gone["dropped"], *gone["failed"]]
    doubly = {x for x, times in Counter(settled).items() if times > 1}
    unknown = set(settled) - started
    books.uncounted = sorted(doubly | unknown)
    open_ids = started - set(settled)
    books.in_flight = len(open_ids)
    if books.twice:
        books.problems.append(f"trained twice: {books.twice}")
    if books.uncounted:
        books.problems.append(f"settled twice, or never started: {books.uncounted}")
    return open_ids, tokens


def compare(books: Books, open_ids: set[int], state: ClusterState) -> None:
    """Hold the counts against the state that the replay ended in."""
    lost = open_ids ^ set(map(int, state.rollouts))
    if lost:
        books.uncounted = sorted({*books.uncounted, *lost})
        books.problems.append(f"in flight by the journal's lines or by the state only: {lost}")
    if books.started != state.next_rollout_id:
        books.problems.append(f"{books.started} started, the state says {state.next_rollout_id}")
    for name in ("trained", "dropped", "failed"):
        mine, theirs = getattr(books, name), getattr(state, name)
        if mine != theirs:
            books.problems.append(f"{mine} {name} by the journal's lines, {theirs} by the state")


def check_store(
    books: Books, path: Path, state: ClusterState, finished: dict[int, int], *, ended: bool
) -> None:
    """Hold the trajectory store against the journal: it has every token the journal knows of."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
        rows = store.execute(
            "SELECT rollout_id, number, length(ids), length(logprobs), length(versions)"
            " FROM segments ORDER BY rollout_id, number"
        ).fetchall()
    stored: dict[int, int] = {}
    segments: Counter[int] = Counter()
    for rollout_id, number, ids, logprobs, versions in rows:
        if number != segments[rollout_id] or not ids == logprobs == versions:
            books.problems.append(f"store: segment {number} of trajectory {rollout_id} is odd")
        segments[rollout_id] += 1
        stored[rollout_id] = stored.get(rollout_id, 0) + ids // _TOKEN_BYTES
    for rollout in state.rollouts.values():
        number = int(rollout.rollout_id)
        if stored.get(number, 0) < rollout.generated_tokens:
            books.problems.append(
                f"store: {stored.get(number, 0)} tokens of trajectory {number}, the journal knows"
                f" {rollout.generated_tokens}"
            )
    for number, tokens in finished.items():
        if number in stored and stored[number] != tokens:
            books.problems.append(
                f"store: {stored[number]} tokens of trajectory {number}, which ended with {tokens}"
            )
    if ended and (unknown := [x for x in stored if x >= books.started]):
        books.problems.append(f"store: trajectories that were never started: {unknown}")


def check_metrics(books: Books, folder: Path) -> None:
    """Hold the metrics against the journal: one row a step, each once, each with its batch."""
    rows = metrics(folder)
    steps = [int(row["step"]) for row in rows]
    if steps != list(range(1, books.steps + 1)):
        books.problems.append(f"metrics: {len(steps)} rows for {books.steps} steps")
    sequences = sum(int(row["trainer/sequences"]) for row in rows)
    if sequences != books.trained:
        books.problems.append(f"metrics: {sequences} trained, the journal says {books.trained}")
