"""The learning curve of a real run: reward in training, accuracy on held-out problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.drawing import FAINT, SECOND, SERIES, new_figure, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SMOOTHED_STEPS = 8
"""The curve of rewards is a mean over so many steps; the dots behind it are single ones."""


def draw_learning(
    rows: Sequence[Mapping[str, float]],
    held_out: Sequence[Mapping[str, float]],
    path: Path | str,
    *,
    title: str,
) -> Path:
    """Draw reward and held-out accuracy by training step and by time.

    Args:
        rows: one per step, with ``step``, ``time_s`` and ``reward``.
        held_out: one per evaluation, with ``step`` and ``accuracy``; step 0 is before RL.
        path: the PNG to write.
        title: the picture's.
    """
    minutes = {0: 0.0, **{int(row["step"]): row["time_s"] / 60 for row in rows}}
    with style():
        figure = new_figure(9.0, 3.6)
        by_step, by_time = figure.subplots(1, 2, sharey=True)
        steps = [float(row["step"]) for row in rows]
        _curves(by_step, steps, rows, [(x["step"], x["accuracy"]) for x in held_out])
        by_step.set_xlabel("training step")
        by_step.set_ylabel("share of right answers")
        evaluated = [x for x in held_out if int(x["step"]) in minutes]
        times = [minutes[int(step)] for step in steps]
        _curves(by_time, times, rows, [(minutes[int(x["step"])], x["accuracy"]) for x in evaluated])
        by_time.set_xlabel("minutes since the first rollout")
        by_step.set_ylim(0, 1.02)
        by_step.set_title(title)
        by_step.legend(loc="lower right")
        figure.tight_layout()
        return save(figure, path)


def _curves(
    axes: Axes,
    xs: Sequence[float],
    rows: Sequence[Mapping[str, float]],
    held_out: Sequence[tuple[float, float]],
) -> None:
    rewards = np.asarray([row["reward"] for row in rows], float)
    axes.plot(xs, rewards, ".", color=FAINT, alpha=0.35, markersize=4)
    if len(rewards):
        axes.plot(xs, _smooth(rewards), color=SERIES, label="in training (sampled)")
    if held_out:
        where, accuracy = zip(*held_out, strict=True)
        axes.plot(where, accuracy, "o-", color=SECOND, label="held-out problems (greedy)")
    axes.axhline(0.9, color=FAINT, linewidth=0.6, linestyle=":")


def _smooth(values: np.ndarray) -> np.ndarray:
    """Mean over the last steps, fewer at the beginning."""
    sums = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - _SMOOTHED_STEPS)
    smooth: np.ndarray = (sums[ends] - sums[starts]) / (ends - starts)
    return smooth
