"""Loaders of public trace formats, one module each, and the choice among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from traces.errors import TraceError
from traces.loaders import areal, azure, burstgpt, generic, mooncake, openrs, vidur
from traces.loaders.base import Layout, TraceFormat
from traces.records import read_header
from traces.schema import read_workload

if TYPE_CHECKING:
    import pandas as pd

FORMATS: Final[tuple[TraceFormat, ...]] = (
    TraceFormat(
        "workload",
        (Layout("jsonl", ("schema", "schema_version")), Layout("parquet", ())),
        read_workload,
    ),
    areal.FORMAT,
    azure.FORMAT,
    burstgpt.FORMAT,
    mooncake.FORMAT,
    openrs.FORMAT,
    vidur.FORMAT,
)


def detect(path: str | Path) -> TraceFormat:
    """Return the format of a file, seen from its header.

    Raises:
        TraceError: the file cannot be read, or it is of no known format; lists those.
    """
    header = read_header(path)
    for known in FORMATS:
        if known.matches(header):
            return known
    formats = "; ".join(
        f"{known.name} ({' or '.join(map(str, known.layouts))})" for known in FORMATS
    )
    raise TraceError(
        path,
        f"is of no known format: it is {Layout(header.kind, header.columns)}. "
        f"Known formats: {formats}. For any other file, name its columns",
    )


def load(
    path: str | Path,
    format: str | None = None,
    *,
    columns: Mapping[str, str | Sequence[str]] | None = None,
) -> pd.DataFrame:
    """Read a trace of any known format as a workload table (`traces.schema`).

    Args:
        path: the file; CSV and JSONL may be gzipped.
        format: name of the format; seen from the header where not given.
        columns: reads any other file by the columns it names; see `traces.loaders.generic.load`,
            which has more options.

    Returns:
        The table, with ``attrs["format"]`` and ``attrs["skipped_records"]``.

    Raises:
        TraceError: the line, column and value of the first bad record, or no format fits.
        ValueError: there is no format of that name, or ``columns`` does not go with it.
    """
    if format == generic.FORMAT_NAME or (format is None and columns is not None):
        if columns is None:
            raise ValueError("the generic format needs columns={'response_tokens': ..., ...}")
        return generic.load(path, columns=columns)
    if columns is not None:
        raise ValueError(f"columns go with the generic format, not with {format!r}")
    if format is None:
        return detect(path).load(path)
    for known in FORMATS:
        if known.name == format:
            return known.load(path)
    names = ", ".join([known.name for known in FORMATS] + [generic.FORMAT_NAME])
    raise ValueError(f"no trace format is called {format!r}; there are: {names}")
