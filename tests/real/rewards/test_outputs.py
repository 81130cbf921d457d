"""What counts as the same output."""

import pytest

from areal_real.rewards.exact import score
from areal_real.rewards.outputs import parse_result, printed_alike, returned_alike


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("1 2\n3\n", "1 2\n3"),
        ("1", "1  \n\n"),
        ("  1", "1"),
        ("0.5", ".5000000001"),
        ("1.0", "1"),
        ("1e-9", "0"),
        ("3", "3.0"),
        ("a 2.5 b", "a 2.50 b"),
        ("", "\n"),
    ],
)
def test_alike(expected: str, actual: str) -> None:
    assert printed_alike(expected, actual)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("1 2", "12"),
        ("1\n2", "1 2"),
        ("1", ""),
        ("YES", "Yes"),
        ("1000000007", "1000000008"),
        ("12345678901234567890", "12345678901234567891"),
        ("0.5", "0.51"),
        ("1.5", "nan"),
        ("nan", "1.5"),
        ("1.5", "inf"),
        ("1.5", "1e999999999"),
        ("9" * 500, "9" * 499 + "8"),
    ],
)
def test_not_alike(expected: str, actual: str) -> None:
    assert not printed_alike(expected, actual)


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        ([1, [2.0, "a"]], [1, [2.0000001, "a"]], True),
        ([1, 2], [2, 1], False),
        ([1], [1, 1], False),
        ({"a": [0.1]}, {"a": [0.1]}, True),
        ({"a": 1}, {"b": 1}, False),
        (1, 1.0, True),
        (10**9, 10**9 + 1, False),
        (1.5, 10**400, False),
        (1.5, "1.5", False),
        (None, False, False),
        ("1", 1, False),
    ],
)
def test_results(expected: object, actual: object, same: bool) -> None:
    assert returned_alike(expected, actual) is same


@pytest.mark.parametrize("line", [b"", b"[" * 100_000, b"9" * 10_000, b"\xff", b"{", b"1 2"])
def test_what_is_not_json_is_no_result(line: bytes) -> None:
    assert parse_result(line) == (False, None)


def test_exact() -> None:
    assert score("12", " 12\n") == 1.0
    assert score("12", "012") == 0.0
    assert score("12", "12 12") == 0.0
    assert score("x", "X") == 0.0
