"""Mooncake request traces (Apache-2.0).

JSONL as published: ``timestamp`` (milliseconds), ``input_length``, ``output_length``, ``hash_ids``
(blocks of the prompt, which a workload does not keep). CSV of the lengths alone: ``timestamp_ms``
in place of ``timestamp``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from traces.fields import Field, Whole
from traces.loaders.base import (
    MILLISECONDS,
    NS_PER_MS,
    Layout,
    TraceFormat,
    nanoseconds_since_first,
    requests_table,
)
from traces.records import read_header, read_records

if TYPE_CHECKING:
    import pandas as pd

_LENGTHS: dict[str, Field] = {"input_length": Whole(0), "output_length": Whole(1)}
JSONL_FIELDS: dict[str, Field] = {"timestamp": MILLISECONDS, **_LENGTHS}
CSV_FIELDS: dict[str, Field] = {"timestamp_ms": MILLISECONDS, **_LENGTHS}


def load(path: str | Path) -> pd.DataFrame:
    """Read the trace as a workload; ``arrival_ns`` counts from the earliest request.

    Raises:
        TraceError: the line, column and value of the first bad record.
    """
    fields = JSONL_FIELDS if read_header(path).kind == "jsonl" else CSV_FIELDS
    records = read_records(path, fields)
    times_ms = records.columns[next(iter(fields))]
    return requests_table(
        records,
        prompt_tokens="input_length",
        response_tokens="output_length",
        arrival_ns=nanoseconds_since_first(times_ms, NS_PER_MS),
        format_name=FORMAT.name,
    )


FORMAT = TraceFormat(
    "mooncake",
    (Layout("jsonl", tuple(JSONL_FIELDS)), Layout("csv", tuple(CSV_FIELDS))),
    load,
)
