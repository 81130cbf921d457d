"""The kind of picture that most of the figures are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from analysis.drawing import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----")


def grouped_bars(
    groups: Sequence[str],
    series: Sequence[str],
    value: Callable[[str, str], float | None],
    *,
    title: str,
    ylabel: str,
    xlabel: str = "",
    label: str = "{:.0f}",
    width: float = 7.5,
) -> Figure:
    """Bars side by side: one group for each of `groups`, one bar in it for each of `series`.

    Args:
        groups: names along the axis.
        series: names in the legend.
        value: of a group and a series; None leaves a gap.
        title: above the picture.
        ylabel: quantity and unit.
        xlabel: what the groups are, where their names do not say it.
        label: how a bar's value is written above it.
        width: in inches.
    """
    from analysis.drawing import new_figure

    figure = new_figure(width, 3.4)
    axes = figure.add_subplot()
    bar = 0.8 / len(series)
    highest = 0.0
    for number, name in enumerate(series):
        colour, hatch = COLOURS[number % len(COLOURS)], HATCHES[number % len(HATCHES)]
        named = False
        for place, group in enumerate(groups):
            height = value(group, name)
            if height is None:
                continue
            at = place + (number - (len(series) - 1) / 2) * bar
            axes.bar(
                at, height, 0.92 * bar, color=colour, hatch=hatch, edgecolor="white",
                label=None if named else name,
            )  # fmt: skip
            axes.annotate(
                label.format(height), (at, height), (0, 2), textcoords="offset points",
                ha="center", fontsize=7,
            )  # fmt: skip
            named = True
            highest = max(highest, height)
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylabel(ylabel)
    axes.set_xlabel(xlabel)
    axes.set_title(title)
    axes.set_ylim(0, 1.28 * highest)
    axes.legend(ncols=min(4, len(series)), fontsize=8, loc="upper left")
    figure.tight_layout()
    return figure
