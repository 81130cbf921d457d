"""Request traces in the form the Vidur simulator reads (MIT).

CSV: ``arrived_at`` (seconds), ``num_prefill_tokens``, ``num_decode_tokens``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
    "arrived_at": SECONDS,
    "num_prefill_tokens": Whole(0),
    "num_decode_tokens": Whole(1),
}


def load(path: str | Path) -> pd.DataFrame:
    """Read the trace as a workload; ``arrival_ns`` counts from the earliest request.

    Raises:
        TraceError: the line, column and value of the first bad record.
    """
    records = read_records(path, FIELDS)
    return requests_table(
        records,
        prompt_tokens="num_prefill_tokens",
        response_tokens="num_decode_tokens",
        arrival_ns=nanoseconds_since_first(records.columns["arrived_at"], NS_PER_S),
        format_name=FORMAT.name,
    )


FORMAT = TraceFormat("vidur", (Layout("csv", tuple(FIELDS)),), load)
