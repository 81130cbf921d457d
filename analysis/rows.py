"""The rows of a timeline: servers and trainer over time, drawn into axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.accounts import Accounts, accounts
from analysis.bars import (
    Bar,
    Window,
    interrupts_in,
    rollouts_on,
    sample_servers,
    server_bars,
    trainer_bars,
)
from analysis.causes import CAUSE, CAUSES
from analysis.drawing import BELOW_FULL, FAINT, percent
from analysis.recorder import RunRecorder
from analysis.steps import SteadyState, Steps, steady_state, steps_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NS_PER_MINUTE = 60 * 10**9
_POINTS = 800  # times at which rollouts on a server are counted: about one a pixel
_ROW_FILL = 0.86  # of a row's height; the rest parts it from the next


@dataclass(frozen=True, slots=True)
class TimelineRun:
    """What a timeline needs of a run, worked out once."""

    recorder: RunRecorder
    steps: Steps
    steady: SteadyState
    whole: Accounts
    part: Accounts
    servers: list[int]

    @classmethod
    def of(cls, recorder: RunRecorder, servers: int) -> TimelineRun:
        """Work it out.

        Args:
            recorder: the run.
            servers: at most so many of its servers are shown, evenly spread.

        Raises:
            AnalysisError: the spans do not tile the run.
        """
        steps = steps_of(recorder)
        steady = steady_state(steps)
        whole = accounts(recorder)
        part = accounts(recorder, steady.start_ns, steady.end_ns) if len(steps) else whole
        return cls(recorder, steps, steady, whole, part, sample_servers(recorder, servers))

    @property
    def trainer_rows(self) -> float:
        """Height of the trainer's row, in server rows; none in a colocated run."""
        return 0.0 if self.recorder.facts.colocated else max(1.5, 0.16 * len(self.servers))

    @property
    def rows(self) -> float:
        """Height of all rows."""
        return len(self.servers) + (self.trainer_rows + 0.6 if self.trainer_rows else 0)

    @property
    def idle(self) -> str:
        """How idle the GPUs are in steady state, as part of a sentence."""
        part = self.part
        text = f"GPUs idle {percent(part.idle_share())} of the time"
        if self.recorder.facts.colocated:
            return text
        generation, training = part.idle_share("generation"), part.idle_share("training")
        return f"{text} (generation {percent(generation)}, training {percent(training)})"

    @property
    def step_ns(self) -> int:
        """Mean step time in steady state; 0 without steps."""
        step_ns = self.steps.step_ns[self.steady.first_step :]
        return int(step_ns.sum()) // len(step_ns) if len(step_ns) else 0


def most_rollouts(run: TimelineRun, window: Window) -> int:
    """The most rollouts on any server shown at any time of the window; at least 1."""
    times = np.linspace(window.start_ns, window.end_ns, _POINTS).astype(np.int64)
    return int(rollouts_on(run.recorder, run.servers, times).max(initial=1))


def draw_rows(axes: Axes, run: TimelineRun, window: Window, origin_ns: int, full: int) -> set[str]:
    """Draw the rows of a run.

    Args:
        axes: where.
        run: what.
        window: the time to show.
        origin_ns: where time on the x axis, in minutes, counts from.
        full: rollouts on a server that fill the height of its row.

    Returns:
        The causes drawn.
    """
    window = window.padded(run.recorder.end_ns)
    bars = server_bars(run.recorder, run.servers, window)
    count, trainer = len(run.servers), run.trainer_rows
    bottoms = [float(row) for row in range(count)]
    fills = [1.0] * count
    if trainer:
        bars += trainer_bars(run.recorder, count, window)
        bottoms.append(count + 0.6)
        fills.append(trainer)
    _draw_bars(axes, bars, bottoms, fills, origin_ns)
    _draw_rollouts(axes, run, bars, window, origin_ns, full)
    _draw_marks(axes, run, window, origin_ns)
    left = (window.start_ns - origin_ns) / NS_PER_MINUTE
    # A run that was ended at once has no length, but axes need one.
    axes.set_xlim(left, max((window.end_ns - origin_ns) / NS_PER_MINUTE, left + 1e-9))
    axes.set_ylim(max(run.rows, 1), 0)
    every = max(1, -(-count // 24))
    axes.set_yticks(
        [row + 0.5 for row in range(0, count, every)],
        [str(run.servers[row]) for row in range(0, count, every)],
        fontsize=7,
    )
    axes.annotate(
        "server ",
        (0, 0),
        xycoords=axes.get_yaxis_transform(),
        xytext=(-3, 4),
        textcoords="offset points",
        ha="right",
        fontsize=7,
        annotation_clip=False,
    )
    axes.tick_params(axis="y", length=0, pad=2)
    for side in ("left", "top", "right"):
        axes.spines[side].set_visible(False)
    _row_groups(axes, run)
    return {bar.cause for bar in bars}


def _draw_bars(
    axes: Axes, bars: list[Bar], bottoms: list[float], fills: list[float], origin_ns: int
) -> None:
    from matplotlib.collections import PolyCollection

    for cause in CAUSES:
        corners = []
        for bar in bars:
            if bar.cause == cause.key:
                left = (bar.start_ns - origin_ns) / NS_PER_MINUTE
                right = (bar.end_ns - origin_ns) / NS_PER_MINUTE
                fill = fills[bar.row] - 1 + _ROW_FILL
                base = bottoms[bar.row] + (1 - _ROW_FILL) / 2
                # The y axis points down: the low part of a bar is drawn at the bottom of its row.
                low, high = base + (1 - bar.low) * fill, base + (1 - bar.high) * fill
                corners.append([(left, low), (right, low), (right, high), (left, high)])
        if corners:
            axes.add_collection(
                PolyCollection(
                    corners,
                    facecolors=BELOW_FULL if cause.key == "decode" else cause.colour,
                    edgecolors=cause.hatch_colour,
                    linewidths=0,
                    hatch=cause.hatch or None,
                )
            )


def _draw_rollouts(
    axes: Axes, run: TimelineRun, bars: list[Bar], window: Window, origin_ns: int, full: int
) -> None:
    """Fill generating servers up to a height that says how many rollouts they have."""
    from matplotlib.collections import PolyCollection

    grid = np.linspace(window.start_ns, window.end_ns, _POINTS).astype(np.int64)
    counts = rollouts_on(run.recorder, run.servers, grid)
    shapes = []
    for bar in bars:
        if bar.cause == "decode":
            inside = slice(*np.searchsorted(grid, [bar.start_ns, bar.end_ns]))
            times = grid[inside]
            if not len(times):
                continue
            x = np.concatenate([[bar.start_ns], times, [bar.end_ns]])
            heights = np.minimum(counts[bar.row, inside] / full, 1.0)
            heights = np.concatenate([heights[:1], heights, heights[-1:]])
            base = bar.row + (1 + _ROW_FILL) / 2
            minutes = (x - origin_ns) / NS_PER_MINUTE
            top = np.column_stack([minutes, base - heights * _ROW_FILL])
            shapes.append(np.vstack([[minutes[0], base], top, [minutes[-1], base]]))
    colour = CAUSE["decode"].colour
    axes.add_collection(PolyCollection(shapes, facecolors=colour, linewidths=0))


def _draw_marks(axes: Axes, run: TimelineRun, window: Window, origin_ns: int) -> None:
    """Interruptions as crosses, ends of training steps as lines with the version they made."""
    import matplotlib.patheffects as effects

    halo = [effects.withStroke(linewidth=2.2, foreground="white")]
    times, rows = interrupts_in(run.recorder, run.servers, window)
    axes.plot(
        [(x - origin_ns) / NS_PER_MINUTE for x in times.tolist()],
        [row + 0.5 for row in rows],
        linestyle="none",
        marker="x",
        markersize=3.6,
        markeredgewidth=1.1,
        color="black",
        path_effects=halo,
        zorder=4,
        clip_on=False,
    )
    step_ends = zip(run.steps.end_ns.tolist(), run.steps.weight_version.tolist(), strict=True)
    for end_ns, version in step_ends:
        if window.start_ns <= end_ns <= window.end_ns:
            x = (end_ns - origin_ns) / NS_PER_MINUTE
            axes.axvline(x, color="black", linewidth=1.1, linestyle=(0, (4, 2)), zorder=3)
            axes.annotate(
                f"v{version}",
                (x, 0),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=8,
                annotation_clip=False,
            )


def _row_groups(axes: Axes, run: TimelineRun) -> None:
    """Say at the left which rows are servers and which is the trainer."""
    facts = run.recorder.facts
    groups = [("generation" if run.trainer_rows else "all GPUs", 0.0, float(len(run.servers)))]
    if run.trainer_rows:
        groups.append(("training", len(run.servers) + 0.6, run.rows))
    for name, top, bottom in groups:
        gpus = facts.training_gpus if name == "training" else facts.server_gpus
        across = axes.get_yaxis_transform()
        axes.plot(
            [-0.024, -0.024],
            [top + 0.1, bottom - 0.1],
            transform=across,
            color=FAINT,
            linewidth=1.0,
            clip_on=False,
        )
        axes.text(
            -0.029,
            (top + bottom) / 2,
            f"{name}\n{gpus} GPUs",
            transform=across,
            ha="right",
            va="center",
            rotation=90 if name != "training" else 0,
            fontsize=8.5 if name != "training" else 8,
        )
