"""Whether what a program gave back is what its test expects. Runs outside the sandbox.

Everything compared here was made by a program that may mean harm: sizes are bounded by the
sandbox's output limit, and what cannot be read is simply not equal.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal, InvalidOperation

# Codeforces' and APPS' custom for answers that are not whole numbers.
TOLERANCE = 1e-6
_LONGEST_NUMBER = 400  # characters; longer ones are compared as text


def printed_alike(expected: str, actual: str) -> bool:
    """Compare two printed outputs, line by line.

    Blanks at the ends of lines and empty lines at the end do not count. Where a line differs, it
    still counts as equal if its words do in pairs: the same text, the same number, or within
    `TOLERANCE` (absolute or relative) of an expected number that is not whole.
    """
    wanted, given = _lines(expected), _lines(actual)
    return len(wanted) == len(given) and all(map(_line_alike, wanted, given))


def returned_alike(expected: object, actual: object) -> bool:
    """Compare two values as JSON holds them; tuples are lists, floats are within `TOLERANCE`."""
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(map(returned_alike, expected, actual))
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(
            returned_alike(value, actual[key]) for key, value in expected.items()
        )
    if isinstance(expected, float) and isinstance(actual, int | float):
        try:
            return math.isclose(expected, actual, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        except OverflowError:
            return False
    return expected == actual


def parse_result(line: bytes) -> tuple[bool, object]:
    """A line of JSON from the sandbox: whether it is one, and its value."""
    try:
        return True, json.loads(line)
    except (ValueError, RecursionError):
        return False, None


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _line_alike(expected: str, actual: str) -> bool:
    if expected.strip() == actual.strip():
        return True
    wanted, given = expected.split(), actual.split()
    return len(wanted) == len(given) and all(map(_word_alike, wanted, given))


def _word_alike(expected: str, actual: str) -> bool:
    if expected == actual:
        return True
    if max(len(expected), len(actual)) > _LONGEST_NUMBER:
        return False
    try:
        wanted, given = Decimal(expected), Decimal(actual)
    except InvalidOperation:
        return False
    if not (wanted.is_finite() and given.is_finite()):
        return False
    if wanted == given:
        return True
    whole = expected.lstrip("+-").isdigit()
    return not whole and math.isclose(
        float(wanted), float(given), rel_tol=TOLERANCE, abs_tol=TOLERANCE
    )
