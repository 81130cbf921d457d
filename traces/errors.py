"""The one error of this package: a file or table that is not what it should be."""

from __future__ import annotations

from pathlib import Path

MAX_SHOWN_CHARACTERS = 60
NOT_GIVEN = object()
"""Stands for "there is no offending value to show"."""


class TraceError(ValueError):
    """A workload or trace cannot be used, and where exactly.

    The message reads ``azure.csv:5: column 'ContextTokens': must be ..., got 'abc'``. Tables
    that have no lines (Parquet, a DataFrame) give a row in place of the line.

    Attributes:
        path: the file, or a name for a table in memory.
        reason: what is wrong, without the place.
        line: 1-based line in the file, if known.
        row: 1-based data row of a table without lines, if known.
        column: the column or key, if one is to blame.
    """

    def __init__(
        self,
        path: str | Path,
        reason: str,
        *,
        line: int | None = None,
        row: int | None = None,
        column: str | None = None,
        value: object = NOT_GIVEN,
    ) -> None:
        """Build the message from its parts; ``value`` is the offending value, if there is one."""
        self.path = str(path)
        self.reason = reason
        self.line = line
        self.row = row
        self.column = column
        where = self.path if line is None else f"{self.path}:{line}"
        if row is not None:
            where += f": row {row}"
        if column is not None:
            where += f": column {column!r}"
        got = "" if value is NOT_GIVEN else f", got {_shown(value)}"
        super().__init__(f"{where}: {reason}{got}")


def _shown(value: object) -> str:
    if getattr(value, "shape", None) == ():  # a numpy scalar: show 3, not np.int64(3)
        value = value.item()  # type: ignore[attr-defined]
    text = ascii(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else text[: MAX_SHOWN_CHARACTERS - 3] + "..."
