"""The timeline: what every server and the trainer did in a few steps, as a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.bars import Window, window_from, window_of_steps
from analysis.drawing import (
    BELOW_FULL,
    FAINT,
    INK,
    hours,
    legend_of,
    new_figure,
    save,
    share_bar,
    style,
)
from analysis.recorder import RunRecorder
from analysis.rows import NS_PER_MINUTE, TimelineRun, draw_rows, most_rollouts
from analysis.summary import in_flight_mean

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 12.0  # inches
_SHORT_NS = 2 * NS_PER_MINUTE
_SHORT = 14  # characters that fit left of a bar


def draw_timeline(
    recorder: RunRecorder, path: Path | str, *, steps: int = 4, servers: int = 24
) -> Path:
    """Write `timeline_figure` as PNG.

    Args:
        recorder: the run.
        path: PNG to write.
        steps: training steps to show.
        servers: at most so many of the servers are shown, evenly spread.

    Returns:
        The path.

    Raises:
        AnalysisError: the spans do not tile the run.
    """
    return save(timeline_figure(recorder, steps=steps, servers=servers), path)


def timeline_figure(recorder: RunRecorder, *, steps: int = 4, servers: int = 24) -> Figure:
    """Draw a few steady-state steps of a run, and below where the whole run's GPU time went.

    Args:
        recorder: the run.
        steps: training steps to show.
        servers: at most so many of the servers are shown, evenly spread.

    Raises:
        AnalysisError: the spans do not tile the run.
    """
    run = TimelineRun.of(recorder, servers)
    window = window_of_steps(run.steps, run.steady.first_step, steps, recorder.end_ns)
    with style():
        rows_height = max(1.6, 0.2 * run.rows)
        height = rows_height + 2.75
        figure = new_figure(_WIDTH, height)
        axes = figure.add_axes((0.085, 1.95 / height, 0.9, rows_height / height))
        full = most_rollouts(run, window)
        drawn = draw_rows(axes, run, window, 0, full)
        axes.set_xlabel("time since the run began (minutes)")
        _note_heights(axes, full)
        _titles(axes, run, window)
        share = figure.add_axes((0.085, 0.95 / height, 0.9, 0.24 / height))
        drawn |= share_bar(share, run.whole.share)
        _share_axes(share)
        share.set_title(_share_title(run), fontsize=9, color=INK, pad=4)
        _legend(figure, drawn, [run])
        return figure


def compare_timelines(
    run_a: RunRecorder,
    run_b: RunRecorder,
    path: Path | str,
    *,
    steps: int = 3,
    servers: int = 16,
    labels: tuple[str, str] | None = None,
    below: Callable[[Figure, float], None] | None = None,
    below_in: float = 0.0,
) -> Path:
    """Draw two runs one above the other on the same time scale.

    Both windows begin where a steady-state training step ended and are as long as ``steps`` steps
    of the slower run.

    Args:
        run_a: the upper run.
        run_b: the lower run.
        path: PNG to write.
        steps: training steps of the slower run to show.
        servers: at most so many servers of each run are shown.
        labels: what to call the runs; otherwise by their schedulers and names.
        below: draws into the figure what comes below, given the figure and ``below_in``.
        below_in: height kept free for it, in inches.

    Returns:
        The path.

    Raises:
        AnalysisError: the spans of a run do not tile it.
    """
    runs = [TimelineRun.of(recorder, servers) for recorder in (run_a, run_b)]
    first = [
        window_of_steps(run.steps, run.steady.first_step, steps, run.recorder.end_ns)
        for run in runs
    ]
    length_ns = max(1, *(window.end_ns - window.start_ns for window in first))
    windows = [
        window_from(run.steps, window.first_step, length_ns, run.recorder.end_ns)
        for run, window in zip(runs, first, strict=True)
    ]
    full = max(map(most_rollouts, runs, windows))
    with style():
        heights = [max(1.6, 0.19 * run.rows) for run in runs]
        height = sum(heights) + 4.35 + below_in
        figure = new_figure(_WIDTH, height)
        drawn: set[str] = set()
        top = height - 1.15
        title = verdict(*runs, labels=labels)
        figure.text(
            0.085,
            1 - 0.3 / height,
            title,
            fontsize=14 * min(1.0, 100 / len(title)),
            fontweight="bold",
            va="center",
        )
        names = labels or ("", "")
        for run, window, rows_height, name in zip(runs, windows, heights, names, strict=True):
            axes = figure.add_axes((0.085, (top - rows_height) / height, 0.9, rows_height / height))
            drawn |= draw_rows(axes, run, window, window.start_ns, full)
            pad = length_ns // 80
            axes.set_xlim(-pad / NS_PER_MINUTE, (length_ns + pad) / NS_PER_MINUTE)
            unit = _tick_seconds(axes, length_ns) if length_ns < _SHORT_NS else "minutes"
            _titles(axes, run, window, name)
            top -= rows_height + 1.05
        axes.set_xlabel(f"{unit} since the end of a training step")
        _note_heights(axes, full)
        share = figure.add_axes((0.085, (below_in + 0.85) / height, 0.9, 0.62 / height))
        for y, run in zip((1.0, 0.0), runs, strict=True):
            drawn |= share_bar(share, run.whole.share, y, 0.8)
        _share_axes(share)
        told = labels or [run.recorder.facts.scheduler_name for run in runs]
        share.set_yticks([1.0, 0.0], [_short(name) for name in told])
        share.set_title("GPU time of the whole run by cause", fontsize=9, pad=4)
        _legend(figure, drawn, runs, below_in)
        if below is not None:
            below(figure, below_in)
        return save(figure, path)


def _tick_seconds(axes: Axes, length_ns: int) -> str:
    """Label the time axis, which counts minutes, in seconds; returns the unit."""
    from matplotlib.ticker import MaxNLocator

    seconds = [x for x in MaxNLocator(7).tick_values(0, length_ns / 1e9) if x <= length_ns / 1e9]
    axes.set_xticks([x / 60 for x in seconds], [f"{x:g}" for x in seconds])
    return "seconds"


def _short(name: str) -> str:
    """A name that fits beside a bar."""
    return name if len(name) <= _SHORT else f"…{name[1 - _SHORT :]}"


def _titles(axes: Axes, run: TimelineRun, window: Window, label: str = "") -> None:
    facts, steps = run.recorder.facts, run.steps
    title = f"{label or f'{facts.scheduler_name}, {facts.name}'}: {run.idle}"
    size = 12 * min(1.0, 84 / len(title))
    axes.set_title(title, fontsize=size, fontweight="bold", pad=34)
    if len(steps):
        took = f"{len(steps)} steps: {hours(int(steps.end_ns[-1]))}"
        axes.set_title(took, loc="right", fontsize=12, fontweight="bold", pad=34)
    shown, servers = len(run.servers), facts.servers
    many = f"{shown} of {servers} servers" if shown < servers else f"all {servers} servers"
    told = [f"{facts.gpus} GPUs"]
    if len(steps):
        told.append(f"{hours(run.step_ns)} a step")
        mean = in_flight_mean(run.recorder, run.steady.start_ns, run.steady.end_ns)
        if mean is not None and servers:
            told.append(f"{mean / servers:.0f} rollouts a server")
        told.append(f"shown: steps {window.first_step + 1} to {window.end_step}, {many}")
    if run.steady.first_step == 1:
        told.append("means leave out the first step")
    elif run.steady.first_step:
        told.append(f"means leave out the first {run.steady.first_step} steps")
    axes.annotate(
        "; ".join(told),
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 20),
        textcoords="offset points",
        fontsize=9,
        color=FAINT,
        annotation_clip=False,
    )


def _note_heights(axes: Axes, full: int) -> None:
    axes.annotate(
        f"A server's row is blue to its full height with {full} rollouts on the server.",
        (1, 0),
        xycoords="axes fraction",
        xytext=(0, -20),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=7,
        color=FAINT,
    )


def verdict(
    run_a: TimelineRun, run_b: TimelineRun, *, labels: tuple[str, str] | None = None
) -> str:
    """The sentence above a comparison: the time of both, and how much faster the faster is."""
    facts_a, facts_b = run_a.recorder.facts, run_b.recorder.facts
    names = list(labels or (facts_a.scheduler_name, facts_b.scheduler_name))
    where = ""
    if facts_a.gpus == facts_b.gpus:
        where = f" on {facts_a.gpus} GPUs"
    else:
        names = [f"{x} ({y.gpus} GPUs)" for x, y in zip(names, (facts_a, facts_b), strict=True)]
    count = len(run_a.steps)
    if not count or not len(run_b.steps):
        return f"{names[0]} and {names[1]}"
    if count == len(run_b.steps):
        what, times = f"{count} steps", [int(run.steps.end_ns[-1]) for run in (run_a, run_b)]
    else:
        what, times = "A step", [run.step_ns for run in (run_a, run_b)]
    ratio = max(times) / min(times)
    faster = ["", ""]
    faster[times.index(min(times))] = f" ({ratio:.2f} times as fast)"
    told = [f"{name} {hours(t)}{how}" for name, t, how in zip(names, times, faster, strict=True)]
    return f"{what}{where}: {', '.join(told)}"


def _legend(
    figure: Figure, drawn: set[str], runs: list[TimelineRun], below_in: float = 0.0
) -> None:
    """The legend, below the bars of shares."""
    figure.legend(
        handles=[*legend_of(drawn), *_marks(*runs)],
        loc="upper left",
        bbox_to_anchor=(0.078, (below_in + 0.7) / figure.get_figheight()),
        ncols=7,
        fontsize=8,
        handlelength=1.6,
        columnspacing=1.2,
    )


def _share_title(run: TimelineRun) -> str:
    gpu_hours = run.whole.total_gpu_ns / 3600e9
    return f"GPU time of the whole run by cause ({gpu_hours:,.0f} GPU hours)"


def _share_axes(axes: Axes) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0])
    axes.tick_params(axis="x", labelsize=7, length=2, pad=2)
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.set_yticks([])
    for side in ("left", "top", "right"):
        axes.spines[side].set_visible(False)


def _marks(*runs: TimelineRun) -> list[Artist]:
    """Legend entries of the lines and crosses that are used."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    marks: list[Artist] = [
        Patch(facecolor=BELOW_FULL, label="decode: room for more"),
        Line2D(
            [],
            [],
            color="black",
            linewidth=1.1,
            linestyle=(0, (4, 2)),
            label="training step ends, weights vN",
        ),
    ]
    if any(len(run.recorder.interrupts) for run in runs):
        marks.append(
            Line2D(
                [], [], color="black", marker="x", linestyle="none", label="rollouts interrupted"
            )
        )
    return marks
