from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from traces import TraceError, load, validate
from traces.data import sample_path
from traces.loaders import FORMATS, detect, generic

FORMAT_OF_SAMPLE = {
    "areal.jsonl": "areal",
    "azure.csv": "azure",
    "burstgpt.csv": "burstgpt",
    "mooncake.csv": "mooncake",
    "mooncake.jsonl": "mooncake",
    "openrs.csv": "openrs",
    "vidur.csv": "vidur",
    "workload.jsonl": "workload",
}
AREAL = {"seqlen": 30, "prompt_len": 10, "group_id": 4, "prompt_id": "p", "reward": 1.0}
AREAL_SPANS = AREAL | {"version_spans": [[2, 5], [3, 15]]}


def written(path: Path, *lines: str | dict[str, Any]) -> Path:
    path.write_text(
        "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines),
        encoding="utf-8",
    )
    return path


@pytest.mark.parametrize(("name", "format_name"), FORMAT_OF_SAMPLE.items())
def test_every_sample_is_recognised_and_valid(tmp_path: Path, name: str, format_name: str) -> None:
    path = sample_path(name)
    assert detect(path).name == format_name
    table = load(path)
    assert table.attrs["format"] == format_name
    pd.testing.assert_frame_equal(validate(table), table)
    pd.testing.assert_frame_equal(load(path, format_name), table)
    zipped = tmp_path / "renamed"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    pd.testing.assert_frame_equal(load(zipped), table)


def test_every_format_has_a_sample() -> None:
    assert {known.name for known in FORMATS} == set(FORMAT_OF_SAMPLE.values())


@pytest.mark.parametrize("name", ["azure.csv", "mooncake.csv", "mooncake.jsonl", "vidur.csv"])
def test_serving_traces_of_the_same_requests_agree(name: str) -> None:
    table = load(sample_path(name))
    pd.testing.assert_frame_equal(table, load(sample_path("mooncake.csv")))
    assert table["arrival_ns"].iloc[0] == 0
    assert table["group_id"].tolist() == table["prompt_id"].tolist() == list(range(32))


def test_failed_requests_are_skipped_and_counted() -> None:
    table = load(sample_path("burstgpt.csv"))
    others = load(sample_path("azure.csv")).drop(index=[5, 19])
    assert table.attrs["skipped_records"] == 2
    for name in ("prompt_tokens", "response_tokens", "arrival_ns"):
        assert table[name].tolist() == others[name].tolist()


@pytest.mark.parametrize("name", ["areal.jsonl", "openrs.csv", "workload.jsonl"])
def test_rollouts_of_the_same_groups_agree(name: str) -> None:
    table = load(sample_path(name))
    workload = load(sample_path("workload.jsonl"))
    for column in ("group_id", "prompt_id", "sample_index", "response_tokens"):
        assert table[column].tolist() == workload[column].tolist()
    if name != "openrs.csv":
        assert table["prompt_tokens"].tolist() == workload["prompt_tokens"].tolist()


def test_arrivals_count_from_the_earliest_request(tmp_path: Path) -> None:
    azure = written(
        tmp_path / "a",
        "TIMESTAMP,ContextTokens,GeneratedTokens",
        "2024-05-10 00:00:01.0000001+00:00,4,5",
        "2024-05-10 00:00:00.0000000+00:00,6,7",
    )
    assert load(azure)["arrival_ns"].tolist() == [1_000_000_100, 0]
    vidur = written(
        tmp_path / "v",
        "arrived_at,num_prefill_tokens,num_decode_tokens",
        "1700000000.25,1,1",
        "1700000000.75,1,1",
    )
    assert load(vidur)["arrival_ns"].tolist() == [0, 500_000_000]


AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens"
AZURE_ROW = "2023-11-16 18:15:46.6805900,374,44"
BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
BURST_ROW = "5,ChatGPT,472,18,490,Conversation log"
MOONCAKE = "timestamp_ms,input_length,output_length,n_hash_blocks,first_hash"
MOONCAKE_ROW = "0,6758,500,14,0"
MOON = {"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}
OPENRS = "dataset,model,run,prompt_id,tokens,finish_time_s,prompt_match_resid"
OPENRS_ROW = "AIME24,m,0,24,3336.9,51.84,0.12"
VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens"
VIDUR_ROW = "0.0,374,44"


@pytest.mark.parametrize(
    ("format_name", "lines", "line", "column", "value"),
    [
        ("azure", [AZURE, AZURE_ROW, "yesterday,374,44"], 3, "TIMESTAMP", "'yesterday'"),
        ("azure", [AZURE, "2023-11-16 18:15:46,-1,44"], 2, "ContextTokens", "'-1'"),
        ("azure", [AZURE, AZURE_ROW, "2023-11-16 18:15:46,374,NaN"], 3, "GeneratedTokens", "'NaN'"),
        ("azure", [AZURE, AZURE_ROW, "2023-11-16 18:15:46,374"], 3, "GeneratedTokens", "8:15:46,3"),
        ("azure", [AZURE[:-16], AZURE_ROW[:-3]], 1, "GeneratedTokens", "TIMESTAMP, ContextTokens"),
        ("burstgpt", [BURST, BURST_ROW, "6,m,1.5,1,2.5,x"], 3, "Request tokens", "'1.5'"),
        ("burstgpt", [BURST, "inf,m,1,1,2,x"], 2, "Timestamp", "'inf'"),
        ("burstgpt", [BURST, BURST_ROW, "6,m,1,,2,x"], 3, "Response tokens", "''"),
        ("burstgpt", [BURST, BURST_ROW, "6,m,1,0"], 3, "Total tokens", "4 fields"),
        ("mooncake", [MOONCAKE, MOONCAKE_ROW, "9,10,many,1,0"], 3, "output_length", "'many'"),
        ("mooncake", [MOONCAKE, MOONCAKE_ROW, "-9,10,10,1,0"], 3, "timestamp_ms", "'-9'"),
        ("mooncake", [MOONCAKE, MOONCAKE_ROW, "9,10,10"], 3, "n_hash_blocks", "3 fields"),
        ("mooncake", [MOON, MOON | {"input_length": "many"}], 2, "input_length", "'many'"),
        ("mooncake", [MOON, MOON | {"output_length": 0}], 2, "output_length", "got 0"),
        ("mooncake", [MOON, {"timestamp": 3}], 2, "input_length", "has timestamp"),
        ("mooncake", [MOON, json.dumps(MOON)[:-9]], 2, None, "truncated"),
        ("vidur", [VIDUR, VIDUR_ROW, "nan,1,1"], 3, "arrived_at", "'nan'"),
        ("vidur", [VIDUR, VIDUR_ROW, "0.5,1,-4"], 3, "num_decode_tokens", "'-4'"),
        ("vidur", [VIDUR, VIDUR_ROW, "0.5,1"], 3, "num_decode_tokens", "2 fields"),
        ("vidur", [VIDUR[11:], "1,1"], 1, "arrived_at", "num_prefill_tokens, num_decode_tokens"),
        ("openrs", [OPENRS, OPENRS_ROW, "AIME24,m,0,25,0.2,1,0"], 3, "tokens", "'0.2'"),
        ("openrs", [OPENRS, OPENRS_ROW, "AIME24,m,0,25,12,-1,0"], 3, "finish_time_s", "'-1'"),
        ("openrs", [OPENRS, OPENRS_ROW, "AIME24,m,0,,12,1,0"], 3, "prompt_id", "''"),
        ("openrs", [OPENRS, OPENRS_ROW, "", OPENRS_ROW], 4, "run", "24 of AIME24 a second time"),
        ("openrs", [OPENRS, OPENRS_ROW, "AIME24,m,0,25,12"], 3, "finish_time_s", "5 fields"),
        ("areal", [AREAL, AREAL | {"seqlen": 10}], 2, "seqlen", "above prompt_len = 10, got 10"),
        ("areal", [AREAL, AREAL | {"prompt_len": -1}], 2, "prompt_len", "got -1"),
        ("areal", [AREAL, AREAL | {"reward": "high"}], 2, "reward", "'high'"),
        ("areal", [AREAL, AREAL | {"group_id": None}], 2, "group_id", "got None"),
        ("areal", [AREAL, AREAL_SPANS], 2, "version_spans", "not in the first record"),
        ("areal", [AREAL_SPANS, AREAL], 2, "version_spans", "is missing"),
        ("areal", [AREAL, '{"seqlen": 1'], 2, None, "truncated"),
        (
            "areal",
            [AREAL_SPANS, "", AREAL_SPANS | {"version_spans": [[2, 5], [3, 14]]}],
            3,
            "version_spans",
            "the runs must add up to seqlen - prompt_len = 20, got 19",
        ),
        ("areal", [AREAL, AREAL | {"prompt_id": "q"}], 2, "prompt_id", "in group_id 4, got 1"),
        ("areal", [AREAL, AREAL | {"prompt_len": 11}], 2, "prompt_tokens", "be 10 .*, got 11"),
    ],
)
def test_a_bad_record_is_named(
    tmp_path: Path,
    format_name: str,
    lines: list[str | dict[str, Any]],
    line: int,
    column: str | None,
    value: str,
) -> None:
    path = written(tmp_path / "trace", *lines)
    with pytest.raises(TraceError, match=value) as caught:
        load(path, format_name)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert str(caught.value).startswith(f"{path}:{line}: ")


def test_what_the_areal_loader_keeps(tmp_path: Path) -> None:
    other = AREAL_SPANS | {"reward": None, "version_spans": [[2, 20]], "group_id": 9}
    table = load(written(tmp_path / "a", AREAL_SPANS, other, AREAL_SPANS))
    assert table["group_id"].tolist() == [4, 9, 4]
    assert table["prompt_id"].tolist() == [0, 0, 0]
    assert table["sample_index"].tolist() == [0, 0, 1]
    assert table["version_spans"].tolist() == [((2, 5), (3, 15)), ((2, 20),), ((2, 5), (3, 15))]
    assert table["reward"].isna().tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("keys", "group_ids", "prompt_ids", "samples"),
    [
        ((), [0, 1, 2], [0, 1, 2], [0, 0, 0]),
        (("group_id",), [5, 5, 3], [5, 5, 3], [0, 1, 0]),
        (("prompt_id",), [0, 1, 0], [0, 1, 0], [0, 0, 1]),
    ],
)
def test_groups_and_prompts_that_are_not_recorded(
    tmp_path: Path,
    keys: tuple[str, ...],
    group_ids: list[int],
    prompt_ids: list[int],
    samples: list[int],
) -> None:
    records = [
        {"seqlen": 9, "prompt_len": 3, "group_id": group, "prompt_id": prompt}
        for group, prompt in ((5, "a"), (5, "b"), (3, "a"))
    ]
    kept = [{k: v for k, v in r.items() if "id" not in k or k in keys} for r in records]
    table = load(written(tmp_path / "a", *kept))
    assert table["group_id"].tolist() == group_ids
    assert table["prompt_id"].tolist() == prompt_ids
    assert table["sample_index"].tolist() == samples


def test_openrs_groups_are_the_prompts_of_a_data_set(tmp_path: Path) -> None:
    rows = ["A,m,0,7,10.5,1", "A,m,1,7,11.4,1", "B,m,0,7,12,1", "A,m,0,8,0.5,1"]
    table = load(written(tmp_path / "o", OPENRS[: -len(",prompt_match_resid")], *rows))
    assert table["group_id"].tolist() == table["prompt_id"].tolist() == [0, 0, 1, 2]
    assert table["sample_index"].tolist() == [0, 1, 0, 0]
    assert table["response_tokens"].tolist() == [11, 11, 12, 1]
    assert set(table["prompt_tokens"]) == {0}


def test_a_trace_of_failures_only(tmp_path: Path) -> None:
    path = written(tmp_path / "b", BURST, "5,m,4,0,4,x", "6,m,4,0,4,x")
    with pytest.raises(TraceError, match="has no records but 2 failed ones"):
        load(path)


COLUMNS = {
    "response_tokens": "output",
    "prompt_tokens": "input",
    "group_id": ("set", "question"),
    "reward": "score",
}


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_any_file_by_its_columns(tmp_path: Path, ending: str) -> None:
    frame = pd.read_csv(sample_path("generic.csv"))
    path = tmp_path / f"g.{ending}"
    if ending == "csv":
        frame.to_csv(path, index=False)
    elif ending == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    table = load(path, columns=COLUMNS)
    pd.testing.assert_frame_equal(table, load(path, "generic", columns=COLUMNS))
    assert table.attrs["format"] == "generic"
    workload = load(sample_path("workload.jsonl"))
    pd.testing.assert_frame_equal(table.drop(columns="reward"), workload)
    assert table["reward"].tolist() == frame["score"].tolist()

    frame.loc[3, "output"] = -1
    if ending == "parquet":
        frame.to_parquet(path)
        with pytest.raises(TraceError, match=r"g.parquet: row 4: column 'output': must .* got -1"):
            load(path, columns=COLUMNS)


def test_numbers_stay_numbers_and_names_get_numbers(tmp_path: Path) -> None:
    columns = {"response_tokens": "n", "group_id": "g"}
    assert load(written(tmp_path / "a", "n,g", "1,7", "1,3"), columns=columns)[
        "group_id"
    ].tolist() == [7, 3]
    assert load(written(tmp_path / "b", "n,g", "1,7", "1,03", "1,7"), columns=columns)[
        "group_id"
    ].tolist() == [0, 1, 0]


def test_units_and_fractions_of_the_generic_loader(tmp_path: Path) -> None:
    path = written(tmp_path / "g", "t,n", "7,1.5", "5,2.4")
    columns = {"response_tokens": "n", "arrival": "t"}
    for unit, ns in (("s", 10**9), ("ms", 10**6), ("us", 1000), ("ns", 1)):
        table = generic.load(path, columns=columns, arrival_unit=unit, round_tokens=True)  # type: ignore[arg-type]
        assert table["arrival_ns"].tolist() == [2 * ns, 0]
        assert table["response_tokens"].tolist() == [2, 2]
        assert table["prompt_tokens"].tolist() == [0, 0]
    with pytest.raises(TraceError, match=r"g:2: column 'n': must be a whole number .* got '1.5'"):
        generic.load(path, columns=columns)
    with pytest.raises(ValueError, match="arrival_unit must be one of s, ms, us, ns, got 'min'"):
        generic.load(path, columns=columns, arrival_unit="min")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("format_name", "columns", "message"),
    [
        ("azuer", None, "'azuer'; there are: workload, areal, azure, .*, generic"),
        ("generic", None, "the generic format needs columns"),
        ("azure", COLUMNS, "columns go with the generic format, not with 'azure'"),
        (None, {"prompt_tokens": "input"}, "must name a column for response_tokens"),
        (None, COLUMNS | {"tokens": "x"}, "no role 'tokens'; the roles are: response_tokens, "),
        (None, COLUMNS | {"reward": ("score", "set")}, "reward must name one column"),
        (None, COLUMNS | {"group_id": ()}, "group_id must name one column"),
        (None, COLUMNS | {"reward": "input"}, "'input' is given two roles: prompt_tokens and rew"),
        (None, COLUMNS | {"reward": "mark"}, "generic.csv:1: column 'mark': is missing; there"),
    ],
)
def test_wrong_uses_of_load(format_name: str | None, columns: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(sample_path("generic.csv"), format_name, columns=columns)


def test_an_unknown_format_lists_the_known_ones(tmp_path: Path) -> None:
    path = written(tmp_path / "x", "a,b", "1,2")
    with pytest.raises(TraceError, match="is of no known format: it is csv with a, b") as caught:
        load(path)
    for known in FORMATS:
        assert f"{known.name} ({known.layouts[0]}" in str(caught.value)
    with pytest.raises(TraceError, match="is of no known format: it is jsonl with a"):
        load(written(path, {"a": 1}))
