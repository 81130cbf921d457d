"""Small made-up files in the formats of the measured cases."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from benchmarks.measured import DEFAULT_DATA


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as CSV; the first one's keys are the columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def real_data(name: str | Path) -> Path:
    """The folder of the measured cases, if they lie beside the checkout."""
    if not (DEFAULT_DATA / name).is_file():
        pytest.skip(f"the measured cases ({name}) are not beside the checkout")
    return DEFAULT_DATA
