"""How pictures of this package look, and how they are written.

Only matplotlib's objects are used, never pyplot: no state outside a figure, no display.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.causes import CAUSES, Cause

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

DPI = 150
INK = "#222222"
FAINT = "#6b6b6b"
BELOW_FULL = "#c3dcee"
"""Behind the rollouts of a server that generates with fewer than the most."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""Of many series, in order; the colours are those of Okabe and Ito."""
SERIES = "#0072b2"
SECOND = "#d55e00"

_LABELLED_SHARE, _NAMED_SHARE = 0.03, 0.15
"""Smallest shares of a bar that have room for a number, and for the cause's name with it."""


@contextmanager
def style() -> Iterator[None]:
    """Draw in one style, whatever the user's matplotlib settings are."""
    import matplotlib.style

    ours = {
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.8,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 10,
        "figure.dpi": DPI,
        "font.family": "DejaVu Sans",  # comes with matplotlib, so pictures agree everywhere
        "font.size": 9,
        "hatch.linewidth": 0.7,
        "legend.frameon": False,
        "text.color": INK,
        "xtick.color": FAINT,
        "xtick.labelcolor": INK,
        "ytick.color": FAINT,
        "ytick.labelcolor": INK,
    }
    with matplotlib.style.context(["default", ours]):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that size in inches; call it and draw inside `style`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI)


def save(figure: Figure, path: Path | str) -> Path:
    """Write a figure as PNG; the same figure gives the same bytes. Folders are made."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(png_of(figure))
    return target


def png_of(figure: Figure) -> bytes:
    """A figure as PNG."""
    png = BytesIO()
    with style():
        figure.savefig(png, format="png", facecolor="white", metadata={"Software": None})
    return png.getvalue()


def swatch(cause: Cause) -> Patch:
    """A cause's patch for a legend."""
    from matplotlib.patches import Patch

    return Patch(
        facecolor=cause.colour,
        hatch=cause.hatch,
        edgecolor=cause.hatch_colour if cause.hatch else cause.colour,
        linewidth=0,
        label=cause.label,
    )


def percent(share: float | None) -> str:
    """A share as people write it; an en dash where there is none."""
    if share is None:
        return "–"
    if 0 < share < 0.0005:
        return "<0.1 %"
    return f"{100 * share:.1f} %" if share < 0.0995 else f"{100 * share:.0f} %"


def hours(time_ns: int) -> str:
    """A duration as people write it."""
    total_s = time_ns / 1e9
    if total_s >= 36_000:
        return f"{total_s / 3600:.1f} h"
    if total_s >= 1800:
        return f"{total_s / 3600:.2f} h"
    return f"{total_s / 60:.1f} min" if total_s >= 60 else f"{total_s:.1f} s"


def share_bar(
    axes: Axes,
    share_of: Callable[[str], float | None],
    y: float = 0.0,
    height: float = 1.0,
    room: float = 1.0,
) -> set[str]:
    """Draw one bar of 100 %: GPU time by cause, by what `share_of` says of each cause's key.

    Args:
        axes: where to draw.
        share_of: takes a cause's key.
        y: middle of the bar.
        height: of the bar.
        room: how wide it is; a bar of half the width has labels on shares of twice the size.

    Returns:
        The causes drawn.
    """
    left, drawn = 0.0, set()
    for cause in CAUSES:
        share = share_of(cause.key) or 0.0
        if share <= 0:
            continue
        axes.barh(
            y,
            share,
            left=left,
            height=height,
            color=cause.colour,
            hatch=cause.hatch,
            edgecolor=cause.hatch_colour if cause.hatch else cause.colour,
            linewidth=0,
        )
        if share * room >= _LABELLED_SHARE:
            name = f"{cause.label} " if share * room >= _NAMED_SHARE else ""
            axes.text(
                left + share / 2,
                y,
                f"{name}{100 * share:.0f} %",
                ha="center",
                va="center",
                fontsize=8,
                bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.85},
            )
        left += share
        drawn.add(cause.key)
    return drawn


def legend_of(causes: Iterable[str]) -> list[Patch]:
    """Legend patches of these causes, in the order of `CAUSES`."""
    wanted = set(causes)
    return [swatch(cause) for cause in CAUSES if cause.key in wanted]
