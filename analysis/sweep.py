"""A sweep as a table, one row a run, and as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.drawing import COLOURS, MARKERS, new_figure, save, style
from analysis.summary import WALL_CLOCK_KEYS, keys_of

if TYPE_CHECKING:
    import pandas as pd

PANELS: tuple[tuple[str, str, float], ...] = (
    ("effective_throughput_tokens_per_s", "effective throughput, thousand tokens/s", 1e-3),
    ("step_time_s.mean", "step time, s", 1.0),
    ("idle_share.all", "GPUs idle, %", 100.0),
    ("lag.mean", "mean lag, versions", 1.0),
)
"""What the picture shows: key of the summary, axis label, factor to its unit."""

MOST_LINES = 10
"""Combinations of the other keys that a picture has lines for."""


def frame_of(
    settings: Mapping[str, Mapping[str, Any]], summaries: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    """One row a run: its name, what it varies, and the keys of its summary.

    Args:
        settings: what each run varies, by name.
        summaries: see `analysis.summary.summarise`, by the same names.

    Returns:
        Varied keys have their own names as columns, keys of the summary theirs; shares of GPU time
        are spread over columns. Wall-clock keys are left out, so that the table is the same
        everywhere.
    """
    import pandas as pd

    rows = []
    for name, varied in settings.items():
        summary = keys_of(dict(summaries[name]))
        row: dict[str, Any] = {"run": name, **varied}
        for key, value in summary.items():
            if key in WALL_CLOCK_KEYS or key in ("name", "journal_sha256", "lag.histogram"):
                continue
            if isinstance(value, dict):
                row |= {f"{key}.{inner}": share for inner, share in value.items()}
            else:
                row[key] = value
        rows.append(row)
    return pd.DataFrame(rows)


def draw_sweep(frame: pd.DataFrame, keys: Sequence[str], path: Path) -> Path:
    """Draw throughput, step time, idle share and lag by the first varied key.

    Args:
        frame: from `frame_of`.
        keys: what was varied; each combination of all but the first has a line, up to
            `MOST_LINES` of them.
        path: PNG to write.
    """
    first, others = keys[0], list(keys[1:])
    places = {value: place for place, value in enumerate(dict.fromkeys(frame[first]))}
    groups: Iterable[tuple[tuple[Any, ...], pd.DataFrame]] = [((), frame)]
    if others:
        groups = frame.groupby(others, sort=False, dropna=False)
    with style():
        figure = new_figure(9.0, 6.0)
        panels = figure.subplots(2, 2).ravel()
        for number, (which, part) in enumerate(groups):
            if number == MOST_LINES:
                break
            label = ", ".join(
                f"{key.rpartition('.')[2]} {value}"
                for key, value in zip(others, which, strict=True)
            )
            for axes, (column, _, factor) in zip(panels, PANELS, strict=True):
                axes.plot(
                    [places[value] for value in part[first]],
                    part[column].astype(float) * factor,
                    marker=MARKERS[number % len(MARKERS)],
                    color=COLOURS[number % len(COLOURS)],
                    label=label,
                )
        for axes, (_, text, _) in zip(panels, PANELS, strict=True):
            axes.set_xticks(list(places.values()), [str(value) for value in places])
            axes.set_xlabel(first)
            axes.set_ylabel(text, fontsize=8)
            axes.set_ylim(bottom=0)
        if others:
            panels[0].legend(fontsize=7)
        figure.tight_layout()
        return save(figure, path)
