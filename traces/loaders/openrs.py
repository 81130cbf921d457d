"""Repeated evaluations of reasoning models, as recovered from the logs of open-rs (MIT).

CSV: ``dataset``, ``model``, ``run``, ``prompt_id``, ``tokens`` (an estimate, may be fractional),
``finish_time_s``. The answers of all runs to one prompt of one data set are one group.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from traces.fields import INT32_MAX, Field, Key, Real
from traces.loaders.base import SECONDS, Layout, TraceFormat, group_columns
from traces.records import read_records
from traces.schema import assemble

if TYPE_CHECKING:
    import pandas as pd

FIELDS: dict[str, Field] = {
    "dataset": Key(),
    "model": Key(),
    "run": Key(),
    "prompt_id": Key(),
    "tokens": Real(minimum=0.5, maximum=INT32_MAX),
    "finish_time_s": SECONDS,
}


def load(path: str | Path) -> pd.DataFrame:
    """Read the answers as a workload; prompt lengths are not recorded (0).

    Raises:
        TraceError: the line, column and value of the first bad record; also where a run answers
            one prompt of a data set twice.
    """
    records = read_records(path, FIELDS)
    found = records.columns
    seen = set()
    for row, answer in enumerate(
        zip(found["dataset"], found["prompt_id"], found["run"], strict=True)
    ):
        if answer in seen:
            reason = f"answers prompt_id {answer[1]} of {answer[0]} a second time"
            raise records.error(row, "run", reason, answer[2])
        seen.add(answer)
    columns = group_columns(len(records), None, pairs(found["dataset"], found["prompt_id"]))
    # Rounded up at one half, so that nothing rounds to 0.
    columns["response_tokens"] = np.floor(found["tokens"] + 0.5).astype(np.int64)
    columns["prompt_tokens"] = np.zeros(len(records), np.int64)
    return assemble(records, columns, format_name=FORMAT.name)


def pairs(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Return an object array, shape (rows,), of tuples of two columns' values."""
    keys = np.empty(len(first), dtype=object)
    for row, key in enumerate(zip(first, second, strict=True)):
        keys[row] = key
    return keys


FORMAT = TraceFormat("openrs", (Layout("csv", tuple(FIELDS)),), load)
