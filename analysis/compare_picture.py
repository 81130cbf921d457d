"""The picture of a comparison: both timelines, and the distributions of both on each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis.drawing import FAINT, SECOND, SERIES
from analysis.phases import Distributions, distributions
from analysis.recorder import RunRecorder
from analysis.timeline import compare_timelines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BELOW_IN = 3.1  # inches for the distributions: title, panel, axis and legend
_PANEL_IN = 1.85
_BOTTOM_IN = 0.6
_PANELS = ((0.085, 0.175), (0.325, 0.2), (0.59, 0.14), (0.8, 0.185))
"""Left edge and width of each panel, as shares of the figure."""
_BAR = 0.42
_LEAST_BINS, _MOST_BINS = 20, 40
_IDLE = ("idle", "down")


def draw_comparison(
    run_a: RunRecorder,
    run_b: RunRecorder,
    path: Path | str,
    *,
    labels: tuple[str, str],
    notes: tuple[str, ...] = (),
) -> Path:
    """Draw two runs one above the other on the same time scale, and their distributions below.

    Args:
        run_a: the upper run; errors are measured from it.
        run_b: the lower run.
        path: PNG to write.
        labels: what to call the runs.
        notes: what to print below, a line each.

    Returns:
        The path.

    Raises:
        AnalysisError: the spans of a run do not tile it.
    """
    told = (distributions(run_a), distributions(run_b))

    def below(figure: Figure, height_in: float) -> None:
        _draw_below(figure, told, labels, notes)

    return compare_timelines(
        run_a,
        run_b,
        path,
        labels=labels,
        below=below,
        below_in=_BELOW_IN + 0.16 * len(notes),
    )


def _draw_below(
    figure: Figure,
    told: tuple[Distributions, Distributions],
    labels: tuple[str, str],
    notes: tuple[str, ...],
) -> None:
    from matplotlib.patches import Patch

    height = figure.get_figheight()
    bottom = _BOTTOM_IN + 0.16 * len(notes)
    a, b = told
    axes = [
        figure.add_axes((left, bottom / height, width, _PANEL_IN / height))
        for left, width in _PANELS
    ]
    _histograms(axes[0], a.step_s, b.step_s, "Step time", "s", "share of steps")
    title = "Response, from start to last token"
    _histograms(axes[1], a.response_s, b.response_s, title, "s", "share of trajectories")
    _lags(axes[2], a.lag, b.lag)
    _trainer(axes[3], a.trainer_s_per_step, b.trainer_s_per_step)
    top = (bottom + _PANEL_IN + 0.45) / height
    title = f"Steady state, start-up left out; in percent: how far {labels[1]} is off {labels[0]}"
    figure.text(0.085, top, title, fontsize=10, fontweight="bold", va="center")
    figure.legend(
        handles=[
            Patch(facecolor=SERIES, alpha=0.55, label=labels[0]),
            Patch(facecolor=SECOND, alpha=0.75, label=labels[1]),
        ],
        loc="center right",
        bbox_to_anchor=(0.99, top),
        ncols=2,
        fontsize=9,
    )
    for line, note in enumerate(notes):
        y = (0.08 + 0.16 * (len(notes) - 1 - line)) / height
        figure.text(0.085, y, f"Note: {note}", fontsize=8, color=SECOND)


def _histograms(
    axes: Axes, a: NDArray[Any], b: NDArray[Any], title: str, unit: str, what: str
) -> None:
    """Two histograms over the same bins, the second as a line over the first, and both means."""
    both = np.concatenate([a, b])
    if not len(both):
        _empty(axes, title)
        return
    low, high = float(both.min()), float(both.max())
    if high <= low:
        low, high = low - 0.5 * max(abs(low), 1), high + 0.5 * max(abs(high), 1)
    count = min(_MOST_BINS, max(_LEAST_BINS, int(2 * np.sqrt(len(both)))))
    bins = np.linspace(low, high, count + 1)
    means = []
    for values, colour, fill in ((a, SERIES, True), (b, SECOND, False)):
        if len(values):
            shares = np.histogram(values, bins)[0] / len(values)
            alpha = 0.55 if fill else 1.0
            axes.stairs(shares, bins, color=colour, fill=fill, alpha=alpha, linewidth=1.6)
            axes.axvline(float(values.mean()), color=colour, linestyle="--", linewidth=1)
            means.append(float(values.mean()))
    pad = 0.04 * (high - low)
    axes.set_xlim(low - pad, high + pad)
    axes.set_ylim(0, None)
    axes.set_xlabel(f"{unit}; dashed: mean{_off(means)}", fontsize=8)
    axes.set_ylabel(what, fontsize=8)
    _finish(axes, title)
    _as_percent(axes)


def _lags(axes: Axes, a: NDArray[np.int64], b: NDArray[np.int64]) -> None:
    most = int(max(a.max(initial=0), b.max(initial=0)))
    if not len(a) and not len(b):
        _empty(axes, "Lag")
        return
    means = []
    for values, colour, shift in ((a, SERIES, -_BAR / 2), (b, SECOND, _BAR / 2)):
        if len(values):
            shares = np.bincount(values, minlength=most + 1) / len(values)
            alpha = 0.55 if colour == SERIES else 0.75
            axes.bar(np.arange(most + 1) + shift, shares, _BAR, color=colour, alpha=alpha)
            means.append(float(values.mean()))
    axes.set_xlim(-0.7, max(most, 1) + 0.7)
    axes.set_xticks(range(0, most + 1, max(1, most // 8)))
    text = f"; mean {means[0]:.2f} and {means[1]:.2f}" if len(means) == 2 else ""
    axes.set_xlabel(f"versions{text}", fontsize=8)
    axes.set_ylabel("share of trajectories", fontsize=8)
    _finish(axes, "Lag")
    _as_percent(axes)


def _trainer(axes: Axes, a: dict[str, float], b: dict[str, float]) -> None:
    """Paired bars of the seconds a step spends in each phase, with the error beside the second."""
    names = [x for x in dict.fromkeys([*a, *b]) if x not in _IDLE]
    names += [x for x in _IDLE if x in a or x in b]
    title = "Trainer, seconds a step"
    if not names:
        _empty(axes, title)
        return
    longest = max([*a.values(), *b.values()])
    for row, name in enumerate(names):
        for values, colour, shift in ((a, SERIES, -_BAR / 2), (b, SECOND, _BAR / 2)):
            alpha = 0.55 if colour == SERIES else 0.75
            axes.barh(row + shift, values.get(name, 0.0), _BAR, color=colour, alpha=alpha)
        x, y = a.get(name, 0.0), b.get(name, 0.0)
        text = f"{100 * (y - x) / x:+.0f} %" if x else "only here" if y else ""
        axes.text(max(x, y) + 0.02 * longest, row, text, va="center", fontsize=7.5, color=FAINT)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.3 * longest)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("s, mean over the steps", fontsize=8)
    _finish(axes, title)


def _off(means: list[float]) -> str:
    if len(means) < 2 or not means[0]:
        return ""
    return f" ({100 * (means[1] - means[0]) / means[0]:+.1f} %)"


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=9, pad=4)
    axes.tick_params(labelsize=7.5, length=2)


def _empty(axes: Axes, title: str) -> None:
    _finish(axes, title)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, "no finished step", ha="center", va="center", color=FAINT)


def _as_percent(axes: Axes) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %", decimals=0))
