from __future__ import annotations

import gzip
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces import TraceError
from traces.fields import Field, Key, Real, Timestamp, Whole
from traces.records import _csv_fast, _csv_slow, read_header, read_records

FIELDS: dict[str, Field] = {
    "n": Whole(0, 1000),
    "x": Real(-10.0, 10.0, missing_ok=True),
    "k": Key(),
    "t": Timestamp(),
}
GOOD = {"n": "1", "x": "0.5", "k": "a", "t": "2023-11-16 18:17:03.9799600"}
ODD = [
    *("0", "7", "007", "+5", "-1", "3.0", "3.5", "1e2", "1e400", "1001", "99999999999999999999"),
    *("nan", "NaN", "NA", "inf", "null", "None", "", " ", " 4", "4 ", "1_0", "0x1", "True", "abc"),
    *("٣", "é", '"4"', '"1,5"', "2023-11-16 18:17:03", "2023-11-16T18:17:03.9Z", "2023-11-16"),
    *("2023-13-16 18:17:03", "2023-11-16 18:17:03+05:30", "now"),
]
TRUNCATED_GZIP = gzip.compress(b"n\n" + b"1\n2\n" * 99, mtime=0)[:-12]


def numbers(path: Path) -> list[int]:
    return list(read_records(path, {"n": Whole()}).columns["n"])


@st.composite
def csv_lines(draw: st.DrawFn) -> str:
    """A table that is right but in a few places."""
    rows = [dict(GOOD) for _ in range(draw(st.integers(1, 4)))]
    for _ in range(draw(st.integers(0, 2))):
        draw(st.sampled_from(rows))[draw(st.sampled_from(sorted(GOOD)))] = draw(
            st.sampled_from(ODD)
        )
    lines = [",".join(row.values()) for row in rows]
    fault = draw(st.sampled_from(["", "", "cut", "extra", "blank", "all extra"]))
    place = draw(st.integers(0, len(lines) - 1))
    if fault == "cut":
        lines[place] = lines[place].rpartition(",")[0]
    elif fault == "extra":
        lines[place] += ",9"
    elif fault == "all extra":
        lines = [line + ",9" for line in lines]
    elif fault == "blank":
        lines.insert(place, "")
    return "\n".join([",".join(GOOD), *lines]) + draw(st.sampled_from(["", "\n"]))


@given(text=csv_lines())
def test_the_fast_path_never_accepts_what_the_slow_path_refuses(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("records") / "r.csv"
    path.write_text(text, encoding="utf-8")
    header = read_header(path)
    fast = _csv_fast(path, header, FIELDS)
    if fast is None:
        return
    slow = _csv_slow(path, header, FIELDS)
    for name in FIELDS:
        np.testing.assert_array_equal(fast.columns[name], slow.columns[name])
    assert fast.error(len(fast) - 1, "n", "x").line == slow.error(len(slow) - 1, "n", "x").line


def test_the_fast_path_reads_what_is_right(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text(",".join(GOOD) + "\n" + ",".join(GOOD.values()) + "\n")
    records = _csv_fast(path, read_header(path), FIELDS)
    assert records is not None
    assert records.columns["t"].tolist() == [1_700_158_623_979_960_000]
    assert records.columns["k"].tolist() == ["a"]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("n", "3.0", 3),
        ("n", "1e2", 100),
        ("n", " 4 ", 4),
        ("k", "NA", "NA"),
        ("k", "007", "007"),
        ("t", "2023-11-16T18:17:03.9Z", 1_700_158_623_900_000_000),
        ("t", "2023-11-16 18:17:03+05:30", 1_700_158_623_000_000_000 - 19_800_000_000_000),
    ],
)
def test_values_that_are_fine(tmp_path: Path, name: str, text: str, value: object) -> None:
    path = tmp_path / "r.csv"
    path.write_text(",".join(GOOD) + "\n" + ",".join((GOOD | {name: text}).values()) + "\n")
    assert read_records(path, FIELDS).columns[name].tolist() == [value]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("n", text) for text in ("-1", "3.5", "1001", "nan", "", "1_0", "0x1", "True", "٣")),
        *(("x", text) for text in ("10.5", "inf", "abc")),
        ("k", ""),
        *(("t", text) for text in ("2023-13-16 18:17:03", "now", "2023-11-16", "")),
    ],
)
def test_values_that_are_not(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / "r.csv"
    good = ",".join(GOOD.values())
    path.write_text("\n".join([",".join(GOOD), good, "", ",".join((GOOD | {name: text}).values())]))
    with pytest.raises(TraceError) as caught:
        read_records(path, FIELDS)
    assert (caught.value.line, caught.value.column) == (4, name)
    assert str(caught.value).endswith(f"{FIELDS[name].wanted}, got {text!a}")


def test_files_may_be_gzipped_start_with_a_mark_and_have_dos_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "r"
    for content in (
        b"n\n1\n2\n",
        b"\xef\xbb\xbfn\r\n1\r\n2\r\n",
        b'\xef\xbb\xbf{"n":1}\r\n{"n":2}',
    ):
        path.write_bytes(content)
        assert numbers(path) == [1, 2]
        path.write_bytes(gzip.compress(content))
        assert numbers(path) == [1, 2]


def test_other_columns_may_hold_anything(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(b'n,other\n1,\xff\n2,\n3,"a\nb"\n4,x\n')
    assert numbers(path) == [1, 2, 3, 4]
    path.write_bytes(b'n,other\n1,"a\nb"\n2,x\n-3,y\n')
    with pytest.raises(TraceError, match=r"r.csv:5: column 'n': .*got '-3'"):
        numbers(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "r: is empty"),
        (b"\n\n", "r: is empty"),
        (b"n,m\n", "r: has no records"),
        (b"n,n\n1,2\n", "r:1: column 'n': appears twice in the header"),
        (b"m\n1\n", "r:1: column 'n': is missing; there are: m"),
        (b"n,m\n1,2\n3\n", "r:3: column 'm': the line has 1 fields where the header has 2, got '3"),
        (b"n,m\n1,2,3\n", "r:2: the line has 3 fields where the header has 2, got '1,2,3'"),
        (b'{"n": 1}\n{"n": ', "r:2: is not JSON; truncated?"),
        (b'{"n": 1}\n{"n": NaN}\n', r"r:2: is not JSON; truncated\? \(NaN is not JSON\)"),
        (b'{"n": 1}\n[1]\n', r"r:2: must be a JSON object, got '\[1\]'"),
        (b'{"n": 1}\n\n{"m": 2}\n', "r:3: column 'n': is missing; this record has m"),
        (b'{"m": 1}\n', "r:1: column 'n': is missing; there are: m"),
        pytest.param(TRUNCATED_GZIP, "r: cannot be read: ", id="truncated gzip"),
        (b"n\n1\n\x00\n", r"r:3: (is not CSV: line contains NUL|column 'n': .*, got '\\x00')"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "r"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=message):
        numbers(path)


def test_long_lines_are_found_whatever_becomes_of_warnings(tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_text("n,m\n1,2,3\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(TraceError, match="r:2: the line has 3 fields"):
            numbers(path)


def test_kept_rows_keep_their_lines(tmp_path: Path) -> None:
    for content in ("n\n1\n\n2\n3\n", '{"n":1}\n\n\n{"n":2}\n{"n":3}\n'):
        path = tmp_path / "r"
        path.write_text(content)
        kept = read_records(path, {"n": Whole()}).keep(np.array([False, True, True]))
        assert kept.columns["n"].tolist() == [2, 3]
        assert [kept.error(row, "n", "x").line for row in (0, 1)] == [4, 5]


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="nothing: cannot be read: No such file"):
        numbers(tmp_path / "nothing")
    with pytest.raises(TraceError, match="cannot be read: Is a directory"):
        numbers(tmp_path)


def test_long_values_are_cut_short() -> None:
    assert len(str(TraceError("f", "is bad", value="x" * 1000))) < 90
