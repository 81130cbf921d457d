"""Trajectory dumps of AReaL, one JSON object a line.

``seqlen`` (prompt and response), ``prompt_len``, and optionally, in every line or in none:
``group_id``, ``prompt_id`` (numbers or names), ``version_spans`` (``[[weight_version, tokens],
...]`` over the response), ``reward`` (null where it was not graded).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from traces.fields import Field, Key, Real, Spans, Whole
from traces.loaders.base import Layout, TraceFormat, group_columns
from traces.records import Records, read_records
from traces.schema import assemble

if TYPE_CHECKING:
    import pandas as pd

FIELDS: dict[str, Field] = {
    "seqlen": Whole(1),
    "prompt_len": Whole(0),
    "group_id": Key(),
    "prompt_id": Key(),
    "version_spans": Spans(),
    "reward": Real(missing_ok=True),
}
OPTIONAL = ("group_id", "prompt_id", "version_spans", "reward")


def load(path: str | Path) -> pd.DataFrame:
    """Read the dump as a workload; the samples of a group count in the order of the lines.

    Raises:
        TraceError: the line, key and value of the first bad record; also where a sequence is not
            longer than its prompt or the runs do not add up to ``seqlen - prompt_len``.
    """
    records = read_records(path, FIELDS, optional=OPTIONAL)
    found = records.columns
    response_tokens = found["seqlen"] - found["prompt_len"]
    too_short = (response_tokens < 1).nonzero()[0]
    if too_short.size:
        row = int(too_short[0])
        reason = f"must be above prompt_len = {found['prompt_len'][row]}"
        raise records.error(row, "seqlen", reason, int(found["seqlen"][row]))
    columns = group_columns(len(records), found.get("group_id"), found.get("prompt_id"))
    columns |= {"prompt_tokens": found["prompt_len"], "response_tokens": response_tokens}
    if "version_spans" in found:
        _check_spans(records, response_tokens)
    columns |= {name: found[name] for name in ("version_spans", "reward") if name in found}
    return assemble(records, columns, format_name=FORMAT.name)


def _check_spans(records: Records, response_tokens: NDArray[Any]) -> None:
    for row, spans in enumerate(records.columns["version_spans"]):
        total = sum(tokens for _, tokens in spans)
        if total != response_tokens[row]:
            reason = f"the runs must add up to seqlen - prompt_len = {response_tokens[row]}"
            raise records.error(row, "version_spans", reason, total)


FORMAT = TraceFormat("areal", (Layout("jsonl", ("seqlen", "prompt_len")),), load)
