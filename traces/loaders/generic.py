"""Any CSV, JSONL or Parquet file whose columns the user names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from traces.fields import INT32_MAX, Field, Key, Real, Whole
from traces.loaders.base import MAX_TIME_S, group_columns, nanoseconds_since_first
from traces.records import Records, read_records
from traces.schema import assemble

if TYPE_CHECKING:
    import pandas as pd

ArrivalUnit = Literal["s", "ms", "us", "ns"]

FORMAT_NAME: Final = "generic"
NS_PER_UNIT: Final[Mapping[str, int]] = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
ROLES: Final = (
    "response_tokens",
    "prompt_tokens",
    "group_id",
    "prompt_id",
    "arrival",
    "reward",
)


def load(
    path: str | Path,
    *,
    columns: Mapping[str, str | Sequence[str]],
    arrival_unit: ArrivalUnit = "s",
    round_tokens: bool = False,
) -> pd.DataFrame:
    """Read a file as a workload.

    Args:
        path: CSV, JSONL (either may be gzipped) or Parquet.
        columns: what the file calls the roles ``response_tokens`` (needed), ``prompt_tokens``,
            ``group_id``, ``prompt_id``, ``arrival`` and ``reward``. An id may be several
            columns, say ``("dataset", "model", "prompt")``. Prompt lengths that are not given are
            0, not recorded; groups as in `traces.loaders.base.group_columns`.
        arrival_unit: unit of ``arrival``, which is counted from the earliest one on.
        round_tokens: take token counts that are estimates with a fraction; otherwise an error.

    Raises:
        TraceError: the line (row in Parquet), column and value of the first bad record.
        ValueError: an argument does not fit.
    """
    names = _column_names(columns)
    if arrival_unit not in NS_PER_UNIT:
        units = ", ".join(NS_PER_UNIT)
        raise ValueError(f"arrival_unit must be one of {units}, got {arrival_unit!r}")
    records = read_records(path, _fields(names, NS_PER_UNIT[arrival_unit], round_tokens))

    def values(role: str) -> NDArray[Any] | None:
        if role not in names:
            return None
        if len(names[role]) == 1:
            return records.columns[names[role][0]]
        return _tuples(records, names[role])

    table = group_columns(len(records), values("group_id"), values("prompt_id"))
    for role in ("prompt_tokens", "response_tokens"):
        tokens = values(role)
        if tokens is None:
            tokens = np.zeros(len(records))
        table[role] = np.floor(tokens + 0.5).astype(np.int64)
    arrival = values("arrival")
    if arrival is not None:
        table["arrival_ns"] = nanoseconds_since_first(arrival, NS_PER_UNIT[arrival_unit])
    reward = values("reward")
    if reward is not None:
        table["reward"] = reward
    return assemble(records, table, format_name=FORMAT_NAME)


def _column_names(columns: Mapping[str, str | Sequence[str]]) -> dict[str, tuple[str, ...]]:
    for role in columns:
        if role not in ROLES:
            raise ValueError(f"columns has no role {role!r}; the roles are: {', '.join(ROLES)}")
    if "response_tokens" not in columns:
        raise ValueError("columns must name a column for response_tokens")
    names = {
        role: (name,) if isinstance(name, str) else tuple(name) for role, name in columns.items()
    }
    used: dict[str, str] = {}
    for role, some in names.items():
        is_id = role in ("group_id", "prompt_id")
        if not some or (len(some) > 1 and not is_id):
            raise ValueError(f"{role} must name one column, got {columns[role]!r}")
        for name in some:
            # Both ids may come from one column; any other double use is a slip of the pen.
            kind = "id" if is_id else role
            if used.setdefault(name, kind) != kind:
                raise ValueError(f"column {name!r} is given two roles: {used[name]} and {kind}")
    return names


def _fields(
    names: Mapping[str, tuple[str, ...]], ns_per_unit: int, round_tokens: bool
) -> dict[str, Field]:
    kinds: dict[str, Field] = {
        "response_tokens": Real(0.5, INT32_MAX) if round_tokens else Whole(1),
        "prompt_tokens": Real(0.0, INT32_MAX) if round_tokens else Whole(0),
        "group_id": Key(),
        "prompt_id": Key(),
        "arrival": Real(0.0, MAX_TIME_S * 10**9 / ns_per_unit),
        "reward": Real(missing_ok=True),
    }
    return {name: kinds[role] for role, some in names.items() for name in some}


def _tuples(records: Records, names: tuple[str, ...]) -> NDArray[Any]:
    keys = np.empty(len(records), dtype=object)
    for row, key in enumerate(zip(*(records.columns[name] for name in names), strict=True)):
        keys[row] = key
    return keys
