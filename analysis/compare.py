"""Two summaries side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from analysis.causes import CAUSES
from analysis.errors import AnalysisError
from analysis.facts import scheduler_title
from analysis.summary import KEYS

if TYPE_CHECKING:
    from rich.table import Table

_IDENTITY = ("name", "scheduler", "seed", "config_sha256", "journal_sha256")
"""Keys that say which run it is: compared for equality, never subtracted."""


@dataclass(frozen=True, slots=True)
class Row:
    """One compared number.

    Attributes:
        key, unit: as in `analysis.summary.KEYS`; a cause of ``gpu_time_share`` is a key of its own.
        a, b: its values; None where a summary has none.
        difference: ``b - a``; None without both.
        ratio: ``b / a``; None without both, or where a is 0.
    """

    key: str
    unit: str
    a: float | None
    b: float | None
    difference: float | None
    ratio: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two summaries, compared.

    Attributes:
        a, b: which runs they are: name, scheduler, seed and hashes.
        rows: the numbers, in the order of a summary.
    """

    a: Mapping[str, Any]
    b: Mapping[str, Any]
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """What `json` can write."""
        return {"a": dict(self.a), "b": dict(self.b), "rows": [asdict(row) for row in self.rows]}

    def table(self) -> Table:
        """The comparison as a table for a terminal, without rows that are zero or empty in both."""
        from rich.table import Table

        headings = _headings(self.a, self.b)
        table = Table(title=f"{headings[0]} and {headings[1]}", title_justify="left")
        table.add_column("", overflow="fold")
        for heading in (*headings, "difference", "ratio"):
            table.add_column(heading, justify="right", no_wrap=heading in ("difference", "ratio"))
        for row in self.rows:
            if row.a or row.b:
                table.add_row(*_cells(row))
        return table


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> Comparison:
    """Compare two summaries.

    Args:
        a: a summary as `analysis.summary.summarise` makes it; differences and ratios start here.
        b: the other one.

    Raises:
        AnalysisError: one is no summary, or a value in it is no number.
    """
    identity = (_identity(a, "first"), _identity(b, "second"))
    left, right = dict(_numbers(a, "first")), dict(_numbers(b, "second"))
    units = {key.name: key.unit for key in KEYS}
    rows = []
    for key in left:
        x, y = left[key], right[key]
        both = x is not None and y is not None
        rows.append(
            Row(
                key=key,
                unit=units.get(key, "share"),
                a=x,
                b=y,
                difference=y - x if both else None,
                ratio=y / x if both and x else None,
            )
        )
    return Comparison(*identity, tuple(rows))


def _identity(summary: Any, label: str) -> dict[str, Any]:
    if not isinstance(summary, Mapping) or "steps" not in summary:
        raise AnalysisError(f"the {label} summary is none: it has no key 'steps'")
    return {name: summary.get(name) for name in _IDENTITY}


def _numbers(summary: Mapping[str, Any], label: str) -> Iterator[tuple[str, Any]]:
    """The numbers of a summary by dotted key, all that `KEYS` knows; None where it has none."""
    for key in KEYS:
        if key.name in _IDENTITY or key.name == "lag.histogram":
            continue
        names = [key.name]
        if key.name == "gpu_time_share":
            names = [f"gpu_time_share.{cause.key}" for cause in CAUSES]
        for name in names:
            value: Any = summary
            for part in name.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, (int, float))
            ):
                raise AnalysisError(f"the {label} summary: {name} = {value!r} is no number")
            yield name, value


def _headings(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[str, str]:
    """The shortest names that tell the two runs apart."""
    for key, shown in (("scheduler", scheduler_title), ("name", str)):
        x, y = (shown(str(run.get(key) or "")) for run in (a, b))
        if x and y and x != y:
            return x, y
    return "first", "second"


def _cells(row: Row) -> tuple[str, str, str, str, str]:
    # A unit the key names already is not said twice.
    word = row.unit.lower().replace("/", "_per_").replace(" ", "_")
    told = row.unit in ("", "share") or f"_{word}_" in f"_{row.key.replace('.', '_')}_"
    unit = "" if told else f" ({row.unit})"
    if row.unit == "share":
        values = [_percent(row.a), _percent(row.b)]
        gap = "" if row.difference is None else f"{100 * row.difference:+.1f} points"
    else:
        values = [_number(row.a), _number(row.b)]
        gap = "" if row.difference is None else _number(row.difference, "+")
    ratio = "" if row.ratio is None else f"{row.ratio:.3g} x"
    return f"{row.key}{unit}", *values, gap, ratio  # type: ignore[return-value]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _number(value: float | None, sign: str = "") -> str:
    if value is None:
        return ""
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:{sign},.0f}"
    return f"{value:{sign}.4g}"
