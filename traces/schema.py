"""The workload schema: one table of rollouts, stored as Parquet or JSONL.

Columns, one row per rollout:

================  =======  ==================================================================
``group_id``      int64    the rollouts of one prompt, sampled together
``prompt_id``     int64    one prompt may have several groups (epochs)
``sample_index``  int32    0 to n - 1 within its group
``prompt_tokens`` int32    0 where the source does not record it
``response_tokens``  int32 at least 1
``arrival_ns``    int64    optional; from the start of the trace
``reward``        float64  optional; NaN where one rollout was not graded
``version_spans``  object  optional; tuple of (weight_version, tokens) runs, in order
================  =======  ==================================================================

Within a table a group has one prompt, a prompt has one length, and the runs of a rollout add up to
its response. Parquet carries the schema's name and version in its metadata, JSONL in its first
line.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from traces.errors import TraceError
from traces.fields import INT64_MAX, Field, Real, Spans, Whole
from traces.records import Records, check_frame, read_header, read_parquet, read_records
from traces.textfiles import json_object, open_text

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_NAME: Final = "areal-lab/workload"
SCHEMA_VERSION: Final = 1

WORKLOAD_FIELDS: Final[Mapping[str, Field]] = {
    "group_id": Whole(0, INT64_MAX),
    "prompt_id": Whole(0, INT64_MAX),
    "sample_index": Whole(0),
    "prompt_tokens": Whole(0),
    "response_tokens": Whole(1),
    "arrival_ns": Whole(0, INT64_MAX),
    "reward": Real(missing_ok=True),
    "version_spans": Spans(),
}
OPTIONAL_COLUMNS: Final = ("arrival_ns", "reward", "version_spans")
_NARROW: Final = dict.fromkeys(("sample_index", "prompt_tokens", "response_tokens"), "int32")


def validate(table: pd.DataFrame, *, name: str = "workload") -> pd.DataFrame:
    """Return the workload in schema order and types, with a fresh index.

    Args:
        table: a table with the schema's columns, of any number type that holds the same values.
        name: what errors call the table.

    Raises:
        TraceError: the row, column and value of the first fault.
    """
    records = check_frame(
        table, WORKLOAD_FIELDS, optional=OPTIONAL_COLUMNS, others_ok=False, path=name
    )
    return assemble(records, records.columns)


def assemble(
    records: Records,
    columns: Mapping[str, NDArray[Any]],
    *,
    format_name: str = "workload",
    skipped_records: int = 0,
) -> pd.DataFrame:
    """Build a workload out of checked columns, and check what holds between rows.

    Args:
        records: where row i came from, for errors.
        columns: the schema's columns, each of shape (rows,), each checked on its own.
        format_name: kept as ``attrs["format"]``.
        skipped_records: records of the source that are no rollouts; ``attrs["skipped_records"]``.

    Raises:
        TraceError: a group with two prompts or a gap in its sample indices, a prompt with two
            lengths, or runs that do not add up to the response.
    """
    import pandas as pd

    _check_one_value(records, columns, of="group_id", value="prompt_id")
    _check_one_value(records, columns, of="prompt_id", value="prompt_tokens")
    _check_sample_indices(records, columns)
    if "version_spans" in columns:
        for row, spans in enumerate(columns["version_spans"]):
            total = sum(tokens for _, tokens in spans)
            if total != columns["response_tokens"][row]:
                reason = f"must add up to response_tokens = {columns['response_tokens'][row]}"
                raise records.error(row, "version_spans", reason, total)
    data = {
        name: columns[name].astype(_NARROW.get(name, field.dtype))
        for name, field in WORKLOAD_FIELDS.items()
        if name in columns
    }
    table = pd.DataFrame(data)
    table.attrs = {
        "schema": SCHEMA_NAME,
        "schema_version": SCHEMA_VERSION,
        "format": format_name,
        "skipped_records": skipped_records,
    }
    return table


def write_workload(table: pd.DataFrame, path: str | Path) -> None:
    """Validate a workload and write it as ``.parquet``, ``.jsonl`` or ``.jsonl.gz``.

    The same table gives the same JSONL bytes, gzipped or not.

    Raises:
        TraceError: the table is not a workload, or the file name has none of these endings.
    """
    table = validate(table)
    name = str(path)
    if name.endswith(".parquet"):
        # pandas keeps `attrs` in the Parquet metadata.
        table.attrs = {"schema": SCHEMA_NAME, "schema_version": SCHEMA_VERSION}
        table.to_parquet(path, index=False)
    elif name.endswith((".jsonl", ".jsonl.gz")):
        data = _jsonl(table).encode()
        if name.endswith(".gz"):
            data = gzip.compress(data, mtime=0)
        Path(path).write_bytes(data)
    else:
        raise TraceError(path, "a workload is written as .parquet, .jsonl or .jsonl.gz")


def read_workload(path: str | Path) -> pd.DataFrame:
    """Read a workload written by `write_workload`.

    Raises:
        TraceError: the file is of another schema or version, or a record is bad: its line (row in
            Parquet), column and value.
    """
    header = read_header(path)
    if header.kind == "parquet":
        frame = read_parquet(path)
        _check_schema(path, frame.attrs.get("schema"), frame.attrs.get("schema_version"))
        records = check_frame(
            frame,
            WORKLOAD_FIELDS,
            optional=OPTIONAL_COLUMNS,
            others_ok=False,
            path=str(path),
            kind="parquet",
        )
        return assemble(records, records.columns)
    if header.kind != "jsonl":
        raise TraceError(path, "is not a workload: neither Parquet nor JSONL")
    with open_text(path) as stream:
        head = json_object(path, 1, stream.readline())
    _check_schema(path, head.get("schema"), head.get("schema_version"), line=1)
    records = read_records(
        path, WORKLOAD_FIELDS, optional=OPTIONAL_COLUMNS, header_lines=1, others_ok=False
    )
    return assemble(records, records.columns)


def _jsonl(table: pd.DataFrame) -> str:
    lines = [json.dumps({"schema": SCHEMA_NAME, "schema_version": SCHEMA_VERSION})]
    names = list(table.columns)
    for row in zip(*(table[name].tolist() for name in names), strict=True):
        record = dict(zip(names, row, strict=True))
        if "reward" in record and math.isnan(record["reward"]):
            record["reward"] = None
        lines.append(json.dumps(record, separators=(",", ":")))
    return "\n".join(lines) + "\n"


def _check_schema(path: str | Path, name: object, version: object, line: int | None = None) -> None:
    if name != SCHEMA_NAME:
        raise TraceError(path, f"must be {SCHEMA_NAME!r}", line=line, column="schema", value=name)
    if version != SCHEMA_VERSION:
        raise TraceError(
            path,
            f"must be {SCHEMA_VERSION}, the only version known here",
            line=line,
            column="schema_version",
            value=version,
        )


def _check_one_value(
    records: Records, columns: Mapping[str, NDArray[Any]], *, of: str, value: str
) -> None:
    keys, first, inverse = np.unique(columns[of], return_index=True, return_inverse=True)
    expected = columns[value][first][inverse]
    wrong = np.flatnonzero(columns[value] != expected)
    if wrong.size:
        row = int(wrong[0])
        reason = f"must be {expected[row]} as before in {of} {keys[inverse[row]]}"
        raise records.error(row, value, reason, columns[value][row])


def _check_sample_indices(records: Records, columns: Mapping[str, NDArray[Any]]) -> None:
    groups, samples = columns["group_id"], columns["sample_index"]
    order = np.lexsort((samples, groups))
    expected = np.empty(len(groups), np.int64)
    expected[order] = position_in_group(groups[order])
    wrong = np.flatnonzero(samples != expected)
    if wrong.size:
        # The lowest wrong index of its group: the ones above it are only shifted.
        row = int(wrong[np.argmin(expected[wrong])])
        reason = f"must count 0, 1, 2, ... in group_id {groups[row]}; {expected[row]} comes next"
        raise records.error(row, "sample_index", reason, samples[row])


def position_in_group(groups: NDArray[Any]) -> NDArray[np.int64]:
    """Return how many equal entries precede each one, shape (rows,), for any order of groups."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    lengths = np.diff(np.append(starts, len(groups)))
    positions = np.empty(len(groups), np.int64)
    positions[order] = np.arange(len(groups)) - np.repeat(starts, lengths)
    return positions
