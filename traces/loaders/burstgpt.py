"""BurstGPT request traces (CC-BY).

CSV: ``Timestamp`` (seconds), ``Model``, ``Request tokens``, ``Response tokens``, ``Total tokens``,
``Log Type``. A failed request is one with 0 response tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from traces.errors import TraceError
from traces.fields import Field, Whole
from traces.loaders.base import (
    NS_PER_S,
    SECONDS,
    Layout,
    TraceFormat,
    nanoseconds_since_first,
    requests_table,
)
from traces.records import read_records

if TYPE_CHECKING:
    import pandas as pd

FIELDS: dict[str, Field] = {
    "Timestamp": SECONDS,
    "Request tokens": Whole(0),
    "Response tokens": Whole(0),
}
_KNOWN_BY = (
    "Timestamp",
    "Model",
    "Request tokens",
    "Response tokens",
    "Total tokens",
    "Log Type",
)


def load(path: str | Path) -> pd.DataFrame:
    """Read the trace as a workload; ``arrival_ns`` counts from the earliest request.

    Failed requests are left out and counted in ``attrs["skipped_records"]``.

    Raises:
        TraceError: the line, column and value of the first bad record, or all requests failed.
    """
    records = read_records(path, FIELDS)
    answered = records.columns["Response tokens"] > 0
    failed = int((~answered).sum())
    if failed == len(records):
        raise TraceError(path, f"has no records but {failed} failed ones (0 response tokens)")
    arrival_ns = nanoseconds_since_first(records.columns["Timestamp"], NS_PER_S)
    return requests_table(
        records.keep(answered) if failed else records,
        prompt_tokens="Request tokens",
        response_tokens="Response tokens",
        arrival_ns=arrival_ns[answered],
        format_name=FORMAT.name,
        skipped_records=failed,
    )


FORMAT = TraceFormat("burstgpt", (Layout("csv", _KNOWN_BY),), load)
