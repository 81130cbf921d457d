"""Two runs side by side, the second judged by the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from analysis.causes import CAUSES
from analysis.errors import AnalysisError
from analysis.facts import scheduler_title
from analysis.phases import PHASE_KEYS
from analysis.summary import KEYS, WALL_CLOCK_KEYS, Key

if TYPE_CHECKING:
    from rich.table import Table

_IDENTITY = ("name", "scheduler", "seed", "config_sha256", "journal_sha256")
"""Keys that say which run it is: compared for equality, never subtracted."""

_WHOLE, _STEADY, _LAG = "whole run", "steady state", "lag"
_TRAINER, _ROLLOUTS = "trainer", "servers and rollouts"
_CAUSES, _ALL_CAUSES = "GPU time, steady state", "GPU time, whole run"

_LEAST_RATIO = 0.01
_KEY_WIDTH = 22  # characters of a key that are not folded in a terminal 80 wide

Values = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Row:
    """One compared number.

    Attributes:
        section: what it is about; all but ``whole run`` and ``GPU time, whole run`` leave the
            start-up out, each run its own.
        key, unit: as in `analysis.summary.KEYS` and `analysis.phases.PHASE_KEYS`; a cause of
            ``gpu_time_share`` is a key of its own, and so is each lag, ``lag.share.N``.
        a, b: its values; None where a run has none.
        difference: ``b - a``; None without both.
        ratio: ``b / a``; None without both, or where a is 0.
        error: how far b is off, with its sign: ``(b - a) / a`` in percent, or, where the unit is a
            share, ``b - a`` in percentage points. None without both; in percent also where a is 0.
        error_unit: ``percent`` or ``points``.
    """

    section: str
    key: str
    unit: str
    a: float | None
    b: float | None
    difference: float | None
    ratio: float | None
    error: float | None
    error_unit: Literal["percent", "points"]

    @classmethod
    def of(cls, section: str, key: str, unit: str, a: float | None, b: float | None) -> Row:
        """Compare two values."""
        difference = ratio = error = None
        if a is not None and b is not None:
            difference = b - a
            ratio = b / a if a else None
            if unit == "share":
                error = 100 * difference
            elif a:
                error = 100 * difference / a
        off: Literal["percent", "points"] = "points" if unit == "share" else "percent"
        return cls(section, key, unit, a, b, difference, ratio, error, off)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs, compared.

    Attributes:
        a, b: which runs they are: name, scheduler, seed and hashes.
        labels: what to call them.
        rows: the numbers, section by section.
        notes: what a reader has to know of the two, such as that a journal breaks off.
    """

    a: Mapping[str, Any]
    b: Mapping[str, Any]
    labels: tuple[str, str]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What `json` can write: ``a``, ``b`` (each with its ``label``), ``notes`` and ``rows``."""
        a, b = ({"label": x, **run} for x, run in zip(self.labels, (self.a, self.b), strict=True))
        return {"a": a, "b": b, "notes": list(self.notes), "rows": [asdict(x) for x in self.rows]}

    def table(self) -> Table:
        """The comparison as a table for a terminal.

        Left out are rows that are zero or empty in both, and what depends on the machine that
        worked it out.
        """
        from rich.table import Table
        from rich.text import Text

        first, second = self.labels
        table = Table(title=Text(f"{first} and {second}"), title_justify="left")
        table.caption = Text("\n".join((f"error: how far {second} is off {first}", *self.notes)))
        table.caption_justify = "left"
        table.add_column("", overflow="fold", min_width=_KEY_WIDTH)
        for heading in (*self.labels, "error", "ratio"):
            no_wrap = heading in ("error", "ratio")
            table.add_column(Text(heading, overflow="fold"), justify="right", no_wrap=no_wrap)
        for section, rows in groupby(self.rows, lambda row: row.section):
            shown = [x for x in rows if (x.a or x.b) and x.key not in WALL_CLOCK_KEYS]
            if shown:
                table.add_section()
                table.add_row(Text(section, "bold"))
                for row in shown:
                    table.add_row(*_cells(row))
        return table


def compare(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    phases_a: Values | None = None,
    phases_b: Values | None = None,
    *,
    labels: tuple[str, str] | None = None,
    notes: tuple[str, ...] = (),
) -> Comparison:
    """Compare two runs.

    Args:
        a: a summary as `analysis.summary.summarise` makes it; errors are measured from here. To
            judge a simulation, the real run.
        b: the other one.
        phases_a: of a, as `analysis.phases.phases` makes them; without them these rows are empty.
        phases_b: of b.
        labels: what to call the runs; otherwise the shortest names that tell them apart.
        notes: handed on.

    Raises:
        AnalysisError: one is no summary, or a value in it is no number.
    """
    identity = (_identity(a, "first"), _identity(b, "second"))
    rows = [
        Row.of(section, key.name, key.unit, x, y)
        for section, key, x, y in _pairs(a, b, phases_a or {}, phases_b or {})
    ]
    return Comparison(*identity, labels or _headings(*identity), tuple(rows), notes)


def _pairs(
    a: Mapping[str, Any], b: Mapping[str, Any], phases_a: Values, phases_b: Values
) -> Iterator[tuple[str, Key, float | None, float | None]]:
    """Section, key and both values, in the order of the table."""

    def told(section: str, key: Key) -> tuple[str, Key, float | None, float | None]:
        return section, key, _number_of(a, key.name, "first"), _number_of(b, key.name, "second")

    def phase(section: str, key: Key) -> tuple[str, Key, float | None, float | None]:
        return section, key, phases_a.get(key.name), phases_b.get(key.name)

    nested = (*_IDENTITY, "lag.histogram", "gpu_time_share")
    keys = [key for key in KEYS if key.name not in nested]
    yield from (told(_WHOLE, key) for key in keys if key.covers == "whole run")
    steady = [key for key in keys if key.covers != "whole run"]
    yield from (told(_STEADY, key) for key in steady if not key.name.startswith("lag."))
    yield from (told(_LAG, key) for key in steady if key.name.startswith("lag."))
    yield from _lag_shares(a, b)
    causes = [key for key in PHASE_KEYS if key.name.startswith("gpu_share.")]
    trainer = [key for key in PHASE_KEYS if key.name.startswith("trainer_s.")]
    yield from (phase(_TRAINER, key) for key in trainer)
    yield from (phase(_ROLLOUTS, key) for key in PHASE_KEYS if key not in trainer + causes)
    yield from (phase(_CAUSES, key) for key in causes)
    for cause in CAUSES:
        key = Key(f"gpu_time_share.{cause.key}", "share", "whole run", cause.meaning)
        yield told(_ALL_CAUSES, key)


def _lag_shares(
    a: Mapping[str, Any], b: Mapping[str, Any]
) -> Iterator[tuple[str, Key, float | None, float | None]]:
    """The share of trajectories at each lag that one of the two runs has."""
    counts = [_histogram(a, "first"), _histogram(b, "second")]
    for lag in sorted(counts[0].keys() | counts[1].keys()):
        key = Key(f"lag.share.{lag}", "share", "steady state", "Share of trajectories by lag.")
        x, y = (count.get(lag, 0) / sum(count.values()) if count else None for count in counts)
        yield _LAG, key, x, y


def _histogram(summary: Mapping[str, Any], label: str) -> dict[int, int]:
    lag = summary.get("lag")
    histogram = lag.get("histogram") if isinstance(lag, Mapping) else None
    try:
        return {int(x): int(count) for x, count in (histogram or {}).items() if count}
    except (AttributeError, TypeError, ValueError):
        raise AnalysisError(f"the {label} summary: lag.histogram = {histogram!r}") from None


def _identity(summary: Any, label: str) -> dict[str, Any]:
    if not isinstance(summary, Mapping) or "steps" not in summary:
        raise AnalysisError(f"the {label} summary is none: it has no key 'steps'")
    return {name: summary.get(name) for name in _IDENTITY}


def _number_of(summary: Mapping[str, Any], name: str, label: str) -> float | None:
    """A summary's number by its dotted key; None where it has none."""
    value: Any = summary
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise AnalysisError(f"the {label} summary: {name} = {value!r} is no number")
    return value


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
    ratio = "" if row.ratio is None else _times(row.ratio)
    if row.unit == "share":
        values, off, ratio = [_percent(row.a), _percent(row.b)], "points", ""
    else:
        values, off = [_number(row.a), _number(row.b)], "%"
    # Adding 0 makes a zero of a negative zero.
    error = "" if row.error is None else f"{round(row.error, 1) + 0.0:+,.1f} {off}"
    return f"{row.key}{unit}", values[0], values[1], error, ratio


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _times(ratio: float) -> str:
    if 0 < ratio < _LEAST_RATIO:
        return f"<{_LEAST_RATIO} x"
    return f"{ratio:.3g} x" if ratio < 1000 else f"{ratio:,.0f} x"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def reference() -> str:
    """The page ``docs/reference/comparison.md``: every key of a comparison, in Markdown."""
    lines = [
        "# Comparison keys",
        "",
        "What `areal-sim compare --json` prints, and `comparison.json` of its `--out`:",
        "",
        "| key | holds |",
        "|---|---|",
        "| `a`, `b` | which runs they are: `label`, `name`, `scheduler`, `seed`, `config_sha256`, "
        "`journal_sha256` |",
        "| `notes` | a list of what a reader has to know, such as that a journal breaks off |",
        "| `rows` | a list of the numbers compared |",
        "",
        "A row has",
        "",
        "| key | holds |",
        "|---|---|",
        "| `section`, `key`, `unit` | which number it is |",
        "| `a`, `b` | its values, `null` where a run has none |",
        "| `difference`, `ratio` | b - a, and b / a |",
        "| `error`, `error_unit` | how far b is off, with its sign: (b - a) / a in `percent`; "
        "for shares b - a in percentage `points` |",
        "",
        "The numbers are those of the [summary](summary.md) (`lag.histogram` as `lag.share.N`, the",
        "share of trajectories with lag N), and these, which leave the start-up out in the same",
        "way. Trajectories are those trained in the steady state.",
        "",
        "| key | unit | meaning |",
        "|---|---|---|",
    ]
    lines += [f"| `{key.name}` | {key.unit} | {key.meaning} |" for key in PHASE_KEYS]
    return "\n".join(lines) + "\n"
