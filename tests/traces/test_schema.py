from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.traces.strategies import workloads
from traces import TraceError, load, read_workload, validate, write_workload
from traces.schema import SCHEMA_NAME, position_in_group

HEADER = {"schema": SCHEMA_NAME, "schema_version": 1}
ROW = {
    "group_id": 0,
    "prompt_id": 0,
    "sample_index": 0,
    "prompt_tokens": 10,
    "response_tokens": 20,
}


def table(*changes: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame([ROW | change for change in changes])


def jsonl(path: Path, *records: object, header: object = HEADER) -> Path:
    lines = [header, *records]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "jsonl.gz"])
@given(workload=workloads())
def test_a_workload_reads_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, ending: str, workload: pd.DataFrame
) -> None:
    path = tmp_path_factory.mktemp("workload") / f"w.{ending}"
    write_workload(workload, path)
    for back in (read_workload(path), load(path)):
        pd.testing.assert_frame_equal(back, workload, check_exact=True)
        assert back.attrs["format"] == "workload"
        if "version_spans" in workload:
            assert back["version_spans"].tolist() == workload["version_spans"].tolist()


def test_the_types_are_those_of_the_schema() -> None:
    back = validate(
        table(
            {
                "arrival_ns": 5,
                "reward": None,
                "version_spans": [[3, 5], [4, 15]],
                "response_tokens": 20.0,
            }
        )
    )
    assert {name: str(dtype) for name, dtype in back.dtypes.items()} == {
        "group_id": "int64",
        "prompt_id": "int64",
        "sample_index": "int32",
        "prompt_tokens": "int32",
        "response_tokens": "int32",
        "arrival_ns": "int64",
        "reward": "float64",
        "version_spans": "object",
    }
    assert back["version_spans"][0] == ((3, 5), (4, 15))
    assert math.isnan(back["reward"][0])


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "b.jsonl.gz", "c.jsonl"):
        write_workload(table({}, {"sample_index": 1}), tmp_path / name)
    first = (tmp_path / "a.jsonl.gz").read_bytes()
    assert first == (tmp_path / "b.jsonl.gz").read_bytes()
    assert first[4:8] == bytes(4)  # no time of writing
    assert gzip.decompress(first) == (tmp_path / "c.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("group_id", -1),
        ("prompt_id", "seven"),
        ("sample_index", 0.5),
        ("prompt_tokens", 2**31),
        ("response_tokens", 0),
        ("response_tokens", None),
        ("response_tokens", True),
        ("response_tokens", "20"),
        ("arrival_ns", -5),
        ("arrival_ns", None),
        ("reward", "good"),
        ("version_spans", [[1, 0], [2, 20]]),
        ("version_spans", [[-1, 20]]),
        ("version_spans", [[1, 20, 3]]),
        ("version_spans", 7),
        ("version_spans", [[1, 19]]),
    ],
)
def test_a_bad_value_is_named(tmp_path: Path, column: str, value: object) -> None:
    good: dict[str, object] = {column: {"reward": 1.0, "arrival_ns": 3}.get(column, 0)}
    if column in ROW:
        good = {}
    elif column == "version_spans":
        good = {column: [[1, 20]]}
    rows = [ROW | good | {"group_id": i, "prompt_id": i} for i in range(3)]
    rows[2][column] = value
    shown = ascii(19 if value == [[1, 19]] else value)

    with pytest.raises(TraceError) as caught:
        read_workload(jsonl(tmp_path / "w.jsonl", *rows))
    assert (caught.value.line, caught.value.column) == (4, column)
    assert str(caught.value).startswith(f"{tmp_path / 'w.jsonl'}:4: column '{column}': must ")
    assert str(caught.value).endswith(f", got {shown}")

    with pytest.raises(TraceError) as caught:
        validate(pd.DataFrame({name: [row[name] for row in rows] for name in rows[0]}))
    assert (caught.value.row, caught.value.column, caught.value.line) == (3, column, None)


def test_infinite_rewards_are_refused() -> None:
    with pytest.raises(TraceError, match=r"row 2: column 'reward': must be a finite number.*inf"):
        validate(table({"reward": 1.0}, {"reward": math.inf, "sample_index": 1}))


@pytest.mark.parametrize(
    ("changes", "row", "column", "message"),
    [
        (({}, {"sample_index": 2}), 2, "sample_index", "1 comes next, got 2"),
        (({}, {"sample_index": 0}), 2, "sample_index", "1 comes next, got 0"),
        (
            ({"sample_index": 3}, {"sample_index": 2}, {}),
            2,
            "sample_index",
            "1 comes next, got 2",
        ),
        (({"sample_index": 1},), 1, "sample_index", "0 comes next, got 1"),
        (
            ({}, {"sample_index": 1, "prompt_id": 4}),
            2,
            "prompt_id",
            "must be 0 as before in group_id 0, got 4",
        ),
        (
            ({}, {"group_id": 1, "prompt_tokens": 11}),
            2,
            "prompt_tokens",
            "must be 10 as before in prompt_id 0, got 11",
        ),
        (
            ({"version_spans": [(0, 20)]}, {"group_id": 1, "version_spans": [(0, 9), (1, 9)]}),
            2,
            "version_spans",
            "must add up to response_tokens = 20, got 18",
        ),
    ],
)
def test_rows_must_fit_together(
    changes: tuple[dict[str, Any], ...], row: int, column: str, message: str
) -> None:
    with pytest.raises(TraceError) as caught:
        validate(table(*changes), name="mine")
    assert str(caught.value).startswith(f"mine: row {row}: column '{column}': ")
    assert message in str(caught.value)


def test_a_missing_and_an_unknown_column_are_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="column 'prompt_id': is missing; there are: group_id,"):
        validate(table({}).drop(columns="prompt_id"))
    with pytest.raises(TraceError, match="column 'tokens': is not known; known are: group_id,"):
        validate(table({"tokens": 3}))
    path = jsonl(tmp_path / "w.jsonl", ROW, ROW | {"sample_index": 1, "rewrad": 1.0})
    with pytest.raises(TraceError, match=r"w.jsonl:3: column 'rewrad': is not known"):
        read_workload(path)
    path = jsonl(tmp_path / "w.jsonl", ROW, ROW | {"sample_index": 1, "reward": 1.0})
    with pytest.raises(TraceError, match=r"w.jsonl:3: column 'reward': is here but not in the fir"):
        read_workload(path)
    path = jsonl(tmp_path / "w.jsonl", ROW | {"reward": 1.0}, ROW | {"sample_index": 1})
    with pytest.raises(TraceError, match=r"w.jsonl:3: column 'reward': is missing; this record"):
        read_workload(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"schema": "other", "schema_version": 1}, "column 'schema': must be .*, got 'other'"),
        (HEADER | {"schema_version": 2}, "column 'schema_version': must be 1, .*, got 2"),
        ({"schema": SCHEMA_NAME}, "column 'schema_version': must be 1, .*, got None"),
    ],
)
def test_another_schema_or_version_is_refused(tmp_path: Path, header: object, message: str) -> None:
    with pytest.raises(TraceError, match=rf"w.jsonl:1: {message}"):
        read_workload(jsonl(tmp_path / "w.jsonl", ROW, header=header))


def test_parquet_without_the_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.parquet"
    table({}).to_parquet(path)
    with pytest.raises(TraceError, match=r"w.parquet: column 'schema': must be"):
        read_workload(path)
    frame = table({}, {"group_id": 1, "response_tokens": 0})
    frame.attrs.update(HEADER)
    frame.to_parquet(path)
    with pytest.raises(TraceError, match=r"w.parquet: row 2: column 'response_tokens': .*got 0"):
        read_workload(path)


def test_files_that_are_no_workload_at_all(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(b"PAR1 but nothing else")
    with pytest.raises(TraceError, match="cannot be read as Parquet"):
        read_workload(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(TraceError, match="neither Parquet nor JSONL"):
        read_workload(path)
    with pytest.raises(TraceError, match="has no records"):
        read_workload(jsonl(path))
    with pytest.raises(TraceError, match="has no records"):
        validate(table({}).head(0))
    with pytest.raises(TraceError, match=r"x.csv: a workload is written as .parquet, .jsonl or"):
        write_workload(table({}), tmp_path / "x.csv")


@given(st.lists(st.integers(0, 3), max_size=20))
def test_position_in_group(groups: list[int]) -> None:
    import numpy as np

    expected = [groups[:row].count(group) for row, group in enumerate(groups)]
    assert position_in_group(np.array(groups, np.int64)).tolist() == expected
