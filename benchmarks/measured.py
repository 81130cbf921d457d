"""What the comparisons with measured cases share: reading their files, and one kind of report.

The measured cases are not part of the project. They lie in a folder named ``shared`` beside the
checkout, or where ``--data`` says.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from areal_sched.errors import ArealError

ROOT = Path(__file__).resolve().parents[1]
"""The checkout."""

DEFAULT_DATA = ROOT.parent / "shared"
"""Where the measured cases lie beside a checkout."""


class DataError(ArealError, ValueError):
    """A file of measured cases is missing, or is not what it should be."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a CSV file: its texts by column, and where it stands."""

    where: str
    texts: dict[str, str]

    def text(self, column: str) -> str:
        """The text of a column, without blanks around it."""
        return self.texts[column].strip()

    def number(self, column: str) -> float:
        """The number in a column.

        Raises:
            DataError: it is none, or is not finite; file, line, column and text are named.
        """
        text = self.text(column)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(f"{self.where}: column {column!r}: {text!r}: expected a number")
        return value

    def positive(self, column: str) -> float:
        """The number in a column, which must be above 0.

        Raises:
            DataError: it is none, or is not above 0.
        """
        value = self.number(column)
        if value <= 0:
            raise DataError(
                f"{self.where}: column {column!r}: {self.text(column)!r}: must be above 0"
            )
        return value

    def maybe(self, column: str) -> float | None:
        """The positive number in a column, None where it is empty.

        Raises:
            DataError: it is something else.
        """
        return self.positive(column) if self.text(column) else None


def read_rows(path: Path, columns: Iterable[str]) -> list[Row]:
    """Read a CSV file.

    Args:
        path: the file.
        columns: columns it must have; others are kept as well.

    Raises:
        DataError: it cannot be read, lacks a column, has no rows, or has a row of another width.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            lines = [(reader.line_num, line) for line in reader if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(f"{path}: cannot be read: {reason}") from None
    for column in columns:
        if column not in header:
            raise DataError(f"{path.name}:1: missing column {column!r}")
    if not lines:
        raise DataError(f"{path.name}: has no rows")
    for number, line in lines:
        if len(line) != len(header):
            raise DataError(
                f"{path.name}:{number}: {len(line)} fields, the header has {len(header)}"
            )
    return [
        Row(f"{path.name}:{number}", dict(zip(header, line, strict=True))) for number, line in lines
    ]


@dataclass(frozen=True, slots=True)
class Case:
    """One measured number and what was predicted for it, both in the same unit.

    Attributes:
        name: which case.
        quantity: what was measured, with its unit.
        measured: above 0.
        predicted: the simulator's number.
        fitted: whether a parameter was fitted to this very number.
        note: what else there is to say.
    """

    name: str
    quantity: str
    measured: float
    predicted: float
    fitted: bool
    note: str = ""

    @property
    def error(self) -> float:
        """Signed relative error: predicted / measured - 1."""
        return self.predicted / self.measured - 1

    @property
    def basis(self) -> str:
        """The mark in the table."""
        return "fitted" if self.fitted else "predicted"


@dataclass(frozen=True, slots=True)
class Fit:
    """One fitted parameter: its name, its value with the unit, and the rows it was fitted to."""

    parameter: str
    value: str
    rows: str


@dataclass(frozen=True, slots=True)
class Report:
    """What one comparison found.

    Attributes:
        title: what is compared.
        cases: all that was compared.
        fits: all that was fitted.
        left_out: (case, reason) for what could not be compared.
        remarks: what a reader has to know besides.
    """

    title: str
    cases: Sequence[Case]
    fits: Sequence[Fit] = ()
    left_out: Sequence[tuple[str, str]] = ()
    remarks: Sequence[str] = field(default=())


def summary_line(cases: Sequence[Case], fitted: bool, quantity: str) -> str:
    """Median and worst absolute error of the cases with that basis and quantity."""
    chosen = [c for c in cases if c.fitted == fitted and c.quantity == quantity]
    basis = "fitted" if fitted else "predicted"
    if not chosen:
        return f"{quantity}, {basis}: no rows"
    errors = [abs(case.error) for case in chosen]
    worst = max(chosen, key=lambda case: abs(case.error))
    return (
        f"{quantity}, {basis}: {len(chosen)} rows, absolute error median"
        f" {statistics.median(errors):.1%}, worst {abs(worst.error):.1%} ({worst.name})"
    )


def text_of(report: Report) -> str:
    """The report as text: one table, then the errors, then what was fitted, then what is missing.

    Raises:
        DataError: there is nothing to compare.
    """
    if not report.cases:
        raise DataError(f"{report.title}: no case could be compared")
    heads = ("case", "quantity", "measured", "predicted", "error", "basis", "note")
    table = [
        (
            case.name,
            case.quantity,
            f"{case.measured:,.4g}" if case.measured < 1000 else f"{case.measured:,.0f}",
            f"{case.predicted:,.4g}" if case.predicted < 1000 else f"{case.predicted:,.0f}",
            f"{case.error:+.1%}",
            case.basis,
            case.note,
        )
        for case in report.cases
    ]
    widths = [max(len(line[n]) for line in (heads, *table)) for n in range(len(heads))]
    lines = [report.title, ""]
    for line in (heads, *table):
        cells = [
            text.rjust(width) if n in (2, 3, 4) else text.ljust(width)
            for n, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.append("")
    for quantity in dict.fromkeys(case.quantity for case in report.cases):
        lines += [summary_line(report.cases, fitted, quantity) for fitted in (True, False)]
    lines.append("")
    lines += [f"fitted: {fit.parameter} = {fit.value}, on {fit.rows}" for fit in report.fits]
    if not report.fits:
        lines.append("nothing was fitted")
    lines += [f"left out: {name}: {reason}" for name, reason in report.left_out]
    lines += report.remarks
    return "\n".join(lines)


def command(
    name: str,
    description: str | None,
    compare: Callable[[Path], Report],
    arguments: Sequence[str] | None = None,
) -> int:
    """The command line that all comparisons share.

    Args:
        name: of the module in `benchmarks`.
        description: for ``--help``.
        compare: takes the folder of the measured cases.
        arguments: command line; the process's own by default.

    Returns:
        0, or 2 after one line about what is missing or wrong.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=DEFAULT_DATA,
        metavar="FOLDER",
        help="with the measured cases; by default the folder 'shared' beside the checkout",
    )
    options = parser.parse_args(arguments)
    try:
        if not options.data.is_dir():
            raise DataError(
                f"{options.data}: no such folder; the measured cases are not part of the project,"
                " --data FOLDER says where they are"
            )
        print(text_of(compare(options.data)))
    except ArealError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0
