"""Azure LLM inference traces (2023 and 2024, CC-BY).

CSV: ``TIMESTAMP`` (date and time, UTC, up to 100 ns), ``ContextTokens``, ``GeneratedTokens``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from traces.fields import Field, Timestamp, Whole
from traces.loaders.base import Layout, TraceFormat, requests_table
from traces.records import read_records

if TYPE_CHECKING:
    import pandas as pd

FIELDS: dict[str, Field] = {
    "TIMESTAMP": Timestamp(),
    "ContextTokens": Whole(0),
    "GeneratedTokens": Whole(1),
}


def load(path: str | Path) -> pd.DataFrame:
    """Read the trace as a workload; ``arrival_ns`` counts from the earliest request.

    Raises:
        TraceError: the line, column and value of the first bad record.
    """
    records = read_records(path, FIELDS)
    times_ns = records.columns["TIMESTAMP"]
    return requests_table(
        records,
        prompt_tokens="ContextTokens",
        response_tokens="GeneratedTokens",
        arrival_ns=times_ns - times_ns.min(),
        format_name=FORMAT.name,
    )


FORMAT = TraceFormat("azure", (Layout("csv", tuple(FIELDS)),), load)
