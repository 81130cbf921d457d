"""What the loaders share: how a format is recognised, and how records become rollouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from traces.fields import INT64_MAX, Real
from traces.records import Header, Kind, Records
from traces.schema import assemble, position_in_group

if TYPE_CHECKING:
    import pandas as pd

NS_PER_S: Final = 1_000_000_000
NS_PER_MS: Final = 1_000_000
MAX_TIME_S: Final = 9.2e9
"""Just below 2**63 ns."""

SECONDS: Final = Real(minimum=0.0, maximum=MAX_TIME_S)
MILLISECONDS: Final = Real(minimum=0.0, maximum=MAX_TIME_S * 1e3)


@dataclass(frozen=True, slots=True)
class Layout:
    """One way a format is laid out: the kind of file, and columns by which it is known."""

    kind: Kind
    columns: tuple[str, ...]

    def __str__(self) -> str:
        """Return it in words, for error messages."""
        return f"{self.kind} with {', '.join(self.columns)}" if self.columns else self.kind


@dataclass(frozen=True, slots=True)
class TraceFormat:
    """A format that `traces.load` knows.

    Attributes:
        name: as given to `traces.load`.
        layouts: what the head of a file of this format looks like.
        load: reads a file into a workload table, or raises TraceError.
    """

    name: str
    layouts: tuple[Layout, ...]
    load: Callable[[str | Path], pd.DataFrame]

    def matches(self, header: Header) -> bool:
        """Return whether a file with this header is of this format."""
        return any(
            layout.kind == header.kind and set(layout.columns) <= set(header.columns)
            for layout in self.layouts
        )


def nanoseconds_since_first(times: NDArray[Any], ns_per_unit: int) -> NDArray[np.int64]:
    """Return times from the earliest one on, in nanoseconds; shape (rows,) in and out."""
    # Subtract first: seconds since 1970 leave a float too few digits for nanoseconds.
    nanoseconds: NDArray[np.int64] = np.rint((times - times.min()) * ns_per_unit).astype(np.int64)
    return nanoseconds


def requests_table(
    records: Records,
    *,
    prompt_tokens: str,
    response_tokens: str,
    arrival_ns: NDArray[np.int64],
    format_name: str,
    skipped_records: int = 0,
) -> pd.DataFrame:
    """Return a serving trace as a workload: every request is a prompt and a group of its own.

    Args:
        records: the checked records.
        prompt_tokens: name of the column with the prompts' lengths.
        response_tokens: name of the column with the responses' lengths.
        arrival_ns: shape (rows,).
        format_name: name of the trace's format.
        skipped_records: records left out.
    """
    rows = np.arange(len(records))
    columns = {
        "group_id": rows,
        "prompt_id": rows,
        "sample_index": np.zeros_like(rows),
        "prompt_tokens": records.columns[prompt_tokens],
        "response_tokens": records.columns[response_tokens],
        "arrival_ns": arrival_ns,
    }
    return assemble(records, columns, format_name=format_name, skipped_records=skipped_records)


def group_columns(
    rows: int, group_keys: NDArray[Any] | None, prompt_keys: NDArray[Any] | None
) -> dict[str, NDArray[Any]]:
    """Return ``group_id``, ``prompt_id`` and ``sample_index`` from whatever names there are.

    Names become numbers as in `as_numbers`. Without groups, all responses to one prompt are one
    group; without prompts, a group is a prompt; without either, every row is both. Samples count
    in the order of the rows.

    Args:
        rows: number of rows.
        group_keys: names or numbers of the groups, shape (rows,).
        prompt_keys: the same of the prompts.
    """
    row_numbers = np.arange(rows)
    groups = group_keys if group_keys is not None else prompt_keys
    prompts = prompt_keys if prompt_keys is not None else group_keys
    group_id = row_numbers if groups is None else as_numbers(groups)
    prompt_id = row_numbers if prompts is None else as_numbers(prompts)
    return {
        "group_id": group_id,
        "prompt_id": prompt_id,
        "sample_index": position_in_group(group_id),
    }


def as_numbers(keys: NDArray[Any]) -> NDArray[np.int64]:
    """Return keys, shape (rows,), as int64.

    Where all are whole numbers from 0 to 2**63 - 1 (in CSV: all written as such, without leading
    zeros), they stay what they are; else every name gets the next number at its first appearance.
    """
    values = keys.tolist()
    if all(isinstance(key, str) and key.isdecimal() and str(int(key)) == key for key in values):
        values = [int(key) for key in values]
    if all(isinstance(key, int) and 0 <= key <= INT64_MAX for key in values):
        return np.array(values, np.int64)
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in values], np.int64)
