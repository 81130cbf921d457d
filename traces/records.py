"""Read columns from CSV, JSONL and Parquet, and name the culprit when one is bad.

The fast path reads whole columns. Only where it cannot vouch for a column is the file read again
record by record; that slow path has the last word, so both accept the same files.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from traces.errors import NOT_GIVEN, TraceError
from traces.fields import Field
from traces.textfiles import csv_rows, first_line, is_gzip, json_object, open_text, reading

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["csv", "jsonl", "parquet", "table"]
_PARQUET_MAGIC = b"PAR1"


@dataclass(frozen=True, slots=True)
class Header:
    """What the head of a file says: its kind and its columns (not read for Parquet)."""

    kind: Kind
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Records:
    """Checked columns of one file or table.

    Attributes:
        path: the file, or a name for a table in memory.
        kind: where the rows came from; "table" is a table in memory.
        columns: one array of shape (rows,) per column; absent optional columns are left out.
        lines: 1-based line of each row, shape (rows,), where they were counted.
    """

    path: str
    kind: Kind
    columns: dict[str, NDArray[Any]]
    lines: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(next(iter(self.columns.values())))

    def keep(self, rows: NDArray[np.bool_]) -> Records:
        """Return the rows where the mask, shape (rows,), is true; errors keep their lines."""
        lines = self._all_lines() if self.kind == "csv" else self.lines
        kept = {name: values[rows] for name, values in self.columns.items()}
        return Records(self.path, self.kind, kept, None if lines is None else lines[rows])

    def error(self, row: int, column: str, reason: str, value: object = NOT_GIVEN) -> TraceError:
        """Return the error for 0-based ``row``, with its line where the file has lines."""
        lines = self._all_lines() if self.kind == "csv" else self.lines
        if lines is None:
            return TraceError(self.path, reason, row=row + 1, column=column, value=value)
        return TraceError(self.path, reason, line=int(lines[row]), column=column, value=value)

    def _all_lines(self) -> NDArray[np.int64]:
        if self.lines is not None:
            return self.lines
        return np.array([line for line, _ in islice(csv_rows(self.path), 1, None)], np.int64)


def read_header(path: str | Path) -> Header:
    """Return the kind and the columns of a file.

    Raises:
        TraceError: the file cannot be read, is empty, or its header is not usable.
    """
    with reading(path), open(path, "rb") as stream:
        magic = stream.read(4)
    if magic == _PARQUET_MAGIC:
        return Header("parquet", ())
    with open_text(path) as stream:
        number, first = next(
            ((n, text) for n, text in enumerate(stream, start=1) if text.strip()), (1, "")
        )
    if first.lstrip().startswith("{"):
        return Header("jsonl", tuple(json_object(path, number, first)))
    _, names = next(csv_rows(path), (1, []))
    if not names:
        raise TraceError(path, "is empty")
    for name in names:
        if names.count(name) > 1:
            raise TraceError(path, "appears twice in the header", line=number, column=name)
    return Header("csv", tuple(names))


def read_records(
    path: str | Path,
    fields: Mapping[str, Field],
    *,
    optional: Collection[str] = (),
    header_lines: int = 0,
    others_ok: bool = True,
) -> Records:
    """Read and check the named columns of a CSV, JSONL (also gzipped) or Parquet file.

    Args:
        path: the file; its kind is seen from its content, not from its name.
        fields: what each column must hold.
        optional: columns that may be absent. In JSONL a key is in every record or in none.
        header_lines: leading JSONL lines that are no records.
        others_ok: whether columns that are not in ``fields`` are passed over or an error.

    Raises:
        TraceError: the file, line, column and value of the first bad record.
    """
    header = read_header(path)
    if header.kind == "parquet":
        frame = read_parquet(path)
        return check_frame(
            frame, fields, optional=optional, others_ok=others_ok, path=str(path), kind="parquet"
        )
    if header.kind == "jsonl":
        records = _read_jsonl(path, fields, optional, header_lines, others_ok)
    else:
        present = _present(path, header.columns, fields, optional, others_ok, line=1)
        records = _csv_fast(path, header, present) or _csv_slow(path, header, present)
    return _not_empty(records)


def read_parquet(path: str | Path) -> pd.DataFrame:
    """Read a Parquet file as it is; ``attrs`` holds its metadata.

    Raises:
        TraceError: the file cannot be read as Parquet.
    """
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise TraceError(path, f"cannot be read as Parquet: {first_line(error)}") from error


def check_frame(
    frame: pd.DataFrame,
    fields: Mapping[str, Field],
    *,
    optional: Collection[str] = (),
    others_ok: bool = True,
    path: str = "table",
    kind: Kind = "table",
) -> Records:
    """Check the named columns of a table; as `read_records`, with rows in place of lines."""
    present = _present(path, tuple(map(str, frame.columns)), fields, optional, others_ok)
    columns: dict[str, NDArray[Any]] = {}
    for name, field in present.items():
        series = frame[name]
        values = field.column(series)
        if values is None:
            checked = []
            for row, value in enumerate(series, start=1):
                try:
                    checked.append(field.check(value))
                except ValueError:
                    raise TraceError(
                        path, field.wanted, row=row, column=name, value=value
                    ) from None
            values = _array(checked, field)
        columns[name] = values
    return _not_empty(Records(path, kind, columns))


def _csv_fast(path: str | Path, header: Header, fields: Mapping[str, Field]) -> Records | None:
    import pandas as pd

    try:
        with warnings.catch_warnings():
            # A warning here means that some line has too many fields: the slow path says which.
            warnings.simplefilter("error")
            frame = pd.read_csv(
                path,
                dtype={name: "str" for name, field in fields.items() if field.as_text},
                compression="gzip" if is_gzip(path) else None,
                encoding="utf-8-sig",
                index_col=False,
                keep_default_na=False,
                na_values=[""],  # and no other word, such as NA, which may well be a name
                low_memory=False,
            )
    except (ValueError, OSError, EOFError, zlib.error, Warning):
        return None
    # A truncated line lacks at least its last field.
    if tuple(frame.columns) != header.columns or bool(frame.iloc[:, -1].hasnans):
        return None
    columns: dict[str, NDArray[Any]] = {}
    for name, field in fields.items():
        values = field.column(frame[name])
        if values is None:
            return None
        columns[name] = values
    return Records(str(path), "csv", columns)


def _csv_slow(path: str | Path, header: Header, fields: Mapping[str, Field]) -> Records:
    places = {name: header.columns.index(name) for name in fields}
    values: dict[str, list[object]] = {name: [] for name in fields}
    lines = []
    for line, row in islice(csv_rows(path), 1, None):
        if len(row) != len(header.columns):
            missing = header.columns[len(row)] if len(row) < len(header.columns) else None
            reason = f"the line has {len(row)} fields where the header has {len(header.columns)}"
            raise TraceError(path, reason, line=line, column=missing, value=",".join(row))
        for name, field in fields.items():
            text = row[places[name]]
            try:
                values[name].append(field.parse(text))
            except ValueError:
                raise TraceError(path, field.wanted, line=line, column=name, value=text) from None
        lines.append(line)
    columns = {name: _array(values[name], field) for name, field in fields.items()}
    return Records(str(path), "csv", columns, np.array(lines, np.int64))


def _read_jsonl(
    path: str | Path,
    fields: Mapping[str, Field],
    optional: Collection[str],
    header_lines: int,
    others_ok: bool,
) -> Records:
    # The standard library's decoder: 20,000 lines take about 0.1 s, and every line is at hand
    # where one is bad.
    present: dict[str, Field] = {}
    checks: list[tuple[str, Callable[[object], object], list[object]]] = []
    absent: list[str] = []
    lines: list[int] = []
    with open_text(path) as stream:
        for line, text in enumerate(stream, start=1):
            if line <= header_lines or not text.strip():
                continue
            record = json_object(path, line, text)
            if not lines:
                present = _present(path, tuple(record), fields, optional, others_ok, line=line)
                checks = [(name, field.check, []) for name, field in present.items()]
                absent = [name for name in fields if name not in present]
            lines.append(line)
            for name, check, values in checks:
                try:
                    values.append(check(record[name]))
                except KeyError:
                    reason = "is missing; this record has " + (", ".join(record) or "no keys")
                    raise TraceError(path, reason, line=line, column=name) from None
                except ValueError:
                    raise TraceError(
                        path, fields[name].wanted, line=line, column=name, value=record[name]
                    ) from None
            for name in absent:
                if name in record:
                    reason = "is here but not in the first record; it must be in all or in none"
                    raise TraceError(path, reason, line=line, column=name)
            if not others_ok and len(record) > len(present):
                _present(path, tuple(record), fields, optional, others_ok, line=line)
    columns = {name: _array(values, present[name]) for name, _, values in checks}
    return Records(str(path), "jsonl", columns, np.array(lines, np.int64))


def _present(
    path: str | Path,
    names: tuple[str, ...],
    fields: Mapping[str, Field],
    optional: Collection[str],
    others_ok: bool,
    line: int | None = None,
) -> dict[str, Field]:
    for name in fields:
        if name not in names and name not in optional:
            reason = f"is missing; there are: {', '.join(names) or 'none'}"
            raise TraceError(path, reason, line=line, column=name)
    for name in names:
        if name not in fields and not others_ok:
            reason = f"is not known; known are: {', '.join(fields)}"
            raise TraceError(path, reason, line=line, column=name)
    return {name: field for name, field in fields.items() if name in names}


def _not_empty(records: Records) -> Records:
    if not records.columns or not len(records):
        raise TraceError(records.path, "has no records")
    return records


def _array(values: list[object], field: Field) -> NDArray[Any]:
    array = np.empty(len(values), dtype=field.dtype)
    # Element by element: numpy would make a matrix of a list of equally long tuples.
    for index, value in enumerate(values):
        array[index] = value
    return array
