"""A plan as a picture: what was found in hours, lag and money, and what the GPUs do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.drawing import (
    COLOURS,
    FAINT,
    INK,
    MARKERS,
    legend_of,
    new_figure,
    save,
    share_bar,
    style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


SCHEDULERS = (
    *("areal", "synchronous", "one_step_off", "in_flight", "partial_rollout", "bounded_lag"),
)
"""In the order of their colours."""


@dataclass(frozen=True, slots=True)
class Point:
    """One candidate: GPUs, share of them that generates, hours, USD, mean lag, scheduler."""

    gpus: int
    generation_share: float
    hours: float
    cost_usd: float
    lag: float
    scheduler: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One of the runs that are compared: hours, their interval, and GPU time by cause."""

    label: str
    hours: float
    interval: tuple[float, float] | None
    gpu_time_share: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What a plan's picture shows."""

    title: str
    estimated: Sequence[Point]
    simulated: Sequence[Point]
    best: Point
    bars: Sequence[Bar]


def draw_plan(picture: Picture, path: Path) -> Path:
    """Draw a plan as PNG."""
    with style():
        return save(plan_figure(picture), path)


def plan_figure(picture: Picture) -> Figure:
    """Four panels: hours by split, hours against lag, hours against money, and GPU time."""
    figure = new_figure(10.0, 6.4)
    panels = figure.subplots(2, 2).ravel()
    figure.suptitle(picture.title, x=0.01, ha="left")
    _points(panels[0], picture, lambda point: 100 * point.generation_share, "GPUs that generate, %")
    panels[0].legend(fontsize=7)
    _points(panels[1], picture, lambda point: point.lag, "mean lag, versions")
    _front(panels[1], picture, lambda point: point.lag)
    if len({point.gpus for point in picture.estimated}) > 1:
        _points(panels[2], picture, lambda point: point.cost_usd / 1000, "cost, thousand USD")
        _front(panels[2], picture, lambda point: point.cost_usd / 1000)
    else:
        _hours(panels[2], picture.bars)
    _shares(panels[3], picture.bars)
    figure.tight_layout()
    return figure


def pareto(points: Sequence[Point], x: Callable[[Point], float]) -> list[Point]:
    """Those that no other is better than in both `x` and hours, by ascending `x`."""
    front: list[Point] = []
    for point in sorted(points, key=lambda each: (x(each), each.hours)):
        if not front or point.hours < front[-1].hours:
            front.append(point)
    return front


def _place(scheduler: str) -> int:
    """Of a schedule among colours and markers: the same in every picture."""
    known = SCHEDULERS.index(scheduler) if scheduler in SCHEDULERS else len(SCHEDULERS)
    return min(known, len(COLOURS) - 1)


def _points(axes: Axes, picture: Picture, x: Callable[[Point], float], label: str) -> None:
    """Estimates faint, simulations by scheduler, the plan with a ring."""
    axes.scatter(
        [x(point) for point in picture.estimated],
        [point.hours for point in picture.estimated],
        s=8, color="#cfcfcf", label="estimated", zorder=1, linewidths=0,
    )  # fmt: skip
    for name in sorted({point.scheduler for point in picture.simulated}, key=_place):
        own = [point for point in picture.simulated if point.scheduler == name]
        axes.scatter(
            [x(point) for point in own],
            [point.hours for point in own],
            s=26, marker=MARKERS[_place(name)], color=COLOURS[_place(name)], label=name, zorder=3,
        )  # fmt: skip
    axes.scatter(
        [x(picture.best)], [picture.best.hours],
        s=130, facecolors="none", edgecolors=INK, linewidths=1.4, label="the plan", zorder=4,
    )  # fmt: skip
    axes.set_xlabel(label)
    axes.set_ylabel("hours")
    hours = [point.hours for point in picture.simulated]
    axes.set_ylim(0, 1.15 * max(hours))


def _front(axes: Axes, picture: Picture, x: Callable[[Point], float]) -> None:
    """The Pareto front of what was simulated."""
    front = pareto(picture.simulated, x)
    axes.step(
        [x(point) for point in front],
        [point.hours for point in front],
        where="post", color=FAINT, linewidth=1.0, zorder=2,
    )  # fmt: skip


def _hours(axes: Axes, bars: Sequence[Bar]) -> None:
    """Hours of each run with its interval."""
    places = range(len(bars))
    axes.barh(places, [bar.hours for bar in bars], color=COLOURS[0], height=0.55)
    for place, bar in zip(places, bars, strict=True):
        right = bar.hours
        if bar.interval is not None:
            axes.plot(bar.interval, [place, place], color=INK, linewidth=1.2)
            right = bar.interval[1]
        axes.annotate(
            f"{bar.hours:,.1f} h", (right, place), xytext=(4, 0), textcoords="offset points",
            va="center", fontsize=8,
        )  # fmt: skip
    axes.set_yticks(list(places), [bar.label for bar in bars])
    axes.invert_yaxis()
    axes.set_xlabel("hours; the line is the 90 % interval")
    axes.set_xlim(right=1.15 * max(bar.interval[1] if bar.interval else bar.hours for bar in bars))


def _shares(axes: Axes, bars: Sequence[Bar]) -> None:
    """GPU time of each run by cause."""
    drawn: set[str] = set()
    for place, bar in enumerate(bars):
        drawn |= share_bar(axes, bar.gpu_time_share.get, place, 0.55, room=0.4)
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_visible(False)
    axes.set_title("what the GPUs do", fontsize=9)
    axes.legend(
        handles=legend_of(drawn), fontsize=6.5, ncol=4, loc="upper center",
        bbox_to_anchor=(0.5, -0.02),
    )  # fmt: skip
