"""Open text files, gzipped or not, and take CSV and JSONL apart with line numbers."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, cast

from traces.errors import TraceError

_GZIP_MAGIC = b"\x1f\x8b"


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn the errors of reading a file into TraceError."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise TraceError(path, f"cannot be read: {reason}") from error


@contextmanager
def open_text(path: str | Path) -> Iterator[TextIO]:
    """Open a text file for reading; gzip is seen from the content.

    Bytes that are no UTF-8 do not raise here: they only matter in columns that are used, and
    there they fail as values.

    Raises:
        TraceError: the file cannot be opened or read (also while the caller reads it).
    """
    with reading(path):
        opener = gzip.open if is_gzip(path) else open
        with opener(
            path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline=""
        ) as stream:
            yield stream


def is_gzip(path: str | Path) -> bool:
    """Return whether the file starts as gzip does."""
    with reading(path), open(path, "rb") as stream:
        return stream.read(2) == _GZIP_MAGIC


def csv_rows(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line and the fields of every record, header first, blank lines left out.

    Raises:
        TraceError: the file cannot be read or is not CSV.
    """
    line = 1
    with open_text(path) as stream:
        reader = csv.reader(stream)
        try:
            for row in reader:
                if row:
                    yield line, row
                line = reader.line_num + 1
        except csv.Error as error:
            raise TraceError(path, f"is not CSV: {error}", line=line) from None


def _refuse_constant(text: str) -> object:
    raise ValueError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def json_object(path: str | Path, line: int, text: str) -> dict[str, object]:
    """Decode one line of JSONL; NaN and Infinity are refused.

    Raises:
        TraceError: the line is no JSON object.
    """
    try:
        value = _DECODER.decode(text.strip())
    except (ValueError, RecursionError) as error:
        reason = f"is not JSON; truncated? ({first_line(error)})"
        raise TraceError(path, reason, line=line, value=text.strip()) from None
    if not isinstance(value, dict):
        raise TraceError(path, "must be a JSON object", line=line, value=text.strip())
    return cast("dict[str, object]", value)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return (str(error) or type(error).__name__).splitlines()[0]
