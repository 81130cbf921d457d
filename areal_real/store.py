"""The trajectory store: every token the servers reported, on disk before anyone hears of it.

One SQLite file. What a rollout generated comes in segments, one per stay on a server; a resumed
run cuts them back to what its journal knows. Rows go when no checkpoint can need them any more.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from areal_real.errors import BackendError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS segments (
    rollout_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    ids BLOB NOT NULL,        -- int32
    logprobs BLOB NOT NULL,   -- float32
    versions BLOB NOT NULL,   -- int32
    PRIMARY KEY (rollout_id, number)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a rollout generated so far, R tokens.

    Attributes:
        ids: int64 (R,).
        logprobs: float32 (R,), under the weights that generated each.
        versions: int64 (R,), those weights, as the server reported them.
        segments: stays on a server this took.
    """

    ids: NDArray[np.int64]
    logprobs: NDArray[np.float32]
    versions: NDArray[np.int64]
    segments: int

    def __len__(self) -> int:
        return len(self.ids)


class TrajectoryStore:
    """Segments by rollout.

    Args:
        path: the file; made if it is not there.

    Raises:
        BackendError: the file cannot be opened, read or written (a full disk); the run must stop,
            since what it would go on with could not be kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            # A killed process loses nothing; a machine without power what came after the last
            # `settle`, and the file stays sound.
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as exc:
            raise BackendError(f"{path}: {exc}") from None

    def settle(self) -> None:
        """See to it that what is stored outlives a loss of power: before a checkpoint."""
        self._execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def add(
        self,
        rollout_id: int,
        ids: NDArray[np.integer] | list[int],
        logprobs: NDArray[np.floating] | list[float],
        versions: NDArray[np.integer] | list[int],
    ) -> int:
        """Append a segment; returns how many tokens the rollout has now.

        Raises:
            BackendError: the disk refuses it, or the three do not have one length.
        """
        if not len(ids) == len(logprobs) == len(versions):
            raise BackendError(
                f"rollout {rollout_id}: the server gave {len(ids)} tokens, {len(logprobs)}"
                f" log-probabilities and {len(versions)} versions"
            )
        count, tokens = self._size(rollout_id)
        if len(ids):
            row = (
                rollout_id,
                count,
                np.asarray(ids, np.int32).tobytes(),
                np.asarray(logprobs, np.float32).tobytes(),
                np.asarray(versions, np.int32).tobytes(),
            )
            self._execute("INSERT INTO segments VALUES (?, ?, ?, ?, ?)", row)
        return tokens + len(ids)

    def answer(self, rollout_id: int) -> Answer:
        """All segments of a rollout, joined."""
        rows = self._execute(
            "SELECT ids, logprobs, versions FROM segments WHERE rollout_id = ? ORDER BY number",
            (rollout_id,),
        ).fetchall()
        columns = list(zip(*rows, strict=True)) if rows else [(), (), ()]
        ids, logprobs, versions = (b"".join(column) for column in columns)
        return Answer(
            np.frombuffer(ids, np.int32).astype(np.int64),
            np.frombuffer(logprobs, np.float32),
            np.frombuffer(versions, np.int32).astype(np.int64),
            len(rows),
        )

    def cut(self, live: dict[int, int], *, started: int) -> int:
        """Keep of each live rollout so many tokens, and nothing of those the journal has not.

        Settled ones stay whole: an older checkpoint may need them, should the newest be damaged.

        Args:
            live: tokens that the journal knows of, by rollout.
            started: rollouts that the journal knows of; their ids count from 0.

        Returns:
            Tokens that were discarded.

        Raises:
            BackendError: a rollout has fewer tokens here than the journal says.
        """
        discarded = 0
        known = [row[0] for row in self._execute("SELECT DISTINCT rollout_id FROM segments")]
        with self._transaction():
            for rollout_id in sorted({*known, *live}):
                if rollout_id < started and rollout_id not in live:
                    continue
                answer = self.answer(rollout_id)
                keep = live.get(rollout_id, 0)
                if keep > len(answer):
                    raise BackendError(
                        f"{self._path}: rollout {rollout_id} has {len(answer)} tokens here and"
                        f" {keep} in the journal"
                    )
                if keep < len(answer):
                    discarded += len(answer) - keep
                    self._delete(rollout_id)
                    ids, logprobs, versions = answer.ids, answer.logprobs, answer.versions
                    self.add(rollout_id, ids[:keep], logprobs[:keep], versions[:keep])
        return discarded

    def forget(self, rollout_ids: Iterable[int]) -> None:
        """Delete rollouts that nobody can ask for again."""
        with self._transaction():
            for rollout_id in rollout_ids:
                self._delete(rollout_id)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._execute("BEGIN")
        try:
            yield
        except BaseException:
            self._db.rollback()
            raise
        self._execute("COMMIT")

    def _delete(self, rollout_id: int) -> None:
        self._execute("DELETE FROM segments WHERE rollout_id = ?", (rollout_id,))

    def _size(self, rollout_id: int) -> tuple[int, int]:
        """Segments and tokens of a rollout."""
        row = self._execute(
            "SELECT count(*), coalesce(sum(length(ids)), 0) FROM segments WHERE rollout_id = ?",
            (rollout_id,),
        ).fetchone()
        return int(row[0]), int(row[1]) // 4

    def _execute(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._db.execute(statement, values)
        except sqlite3.Error as exc:
            raise BackendError(f"{self._path}: {exc}") from None
