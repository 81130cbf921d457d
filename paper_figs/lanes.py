"""Timelines answer by answer: what the paper draws to explain a schedule, from a simulated run.

Readable in black and white: answers are bars in lanes of their server, shaded by the weight version
they began with; ticks are interruptions, and below them the trainer's steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.recorder import RunRecorder
from analysis.steps import steps_of
from analysis.summary import in_flight_mean
from areal_sim.published.systems import config_of
from areal_sim.rundir import simulate
from paper_figs.figure import Cell, Made

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMALL = (
    # Eight GPUs, so that single answers can be seen. Answers are cut at 8k tokens.
    "cluster.nodes=1",
    "workload.prompts_per_step=8",
    "workload.max_response_tokens=8192",
    "sim.trainer.micro_batch_tokens=16384",
    "workload.steps=7",
)
HALF = ("cluster.generation_share=0.5",)
IN_FLIGHT = 128
"""Answers of a batch, and the most in progress at a time."""

LANES = 6
"""Answers of a server that are shown at a time."""

SHADES = ("#bdbdbd", "#f0f0f0", "#969696")
"""Of answers by the version they began with, in turn."""

_S = 1e9


@dataclass(frozen=True, slots=True)
class Shown:
    """A run to draw: its heading, and how to simulate it."""

    title: str
    changes: tuple[str, ...]

    def simulate(self) -> RunRecorder:
        """Run it."""
        config = config_of("7b", "areal", [*SMALL, *HALF, *self.changes])
        return simulate(config, name=self.title).recorder


def draw_lanes(axes: Axes, recorder: RunRecorder, start_ns: int, length_ns: int) -> None:
    """Draw a window of a run; the time axis begins with it."""
    from analysis.drawing import INK

    table = recorder.trajectories
    begun, finish = np.asarray(table["start_ns"]), np.asarray(table["finish_ns"])
    finish = np.where(finish >= 0, finish, recorder.end_ns)
    owner, version = np.asarray(table["server_id"]), np.asarray(table["first_version"])
    servers = sorted({int(x) for x in owner if x >= 0})
    end_ns = start_ns + length_ns
    interrupts = recorder.interrupts
    row = 0.0
    ticks, names = [], []
    for server in servers:
        mine = np.flatnonzero(owner == server)
        mine = mine[np.lexsort((mine, begun[mine]))]
        stops = np.asarray(interrupts["now_ns"])[np.asarray(interrupts["server_id"]) == server]
        free = [0] * LANES
        for index in mine.tolist():
            lane = next((x for x in range(LANES) if free[x] <= begun[index]), None)
            if lane is None:
                continue  # more than are shown
            free[lane] = int(finish[index])
            left, right = max(int(begun[index]), start_ns), min(int(finish[index]), end_ns)
            if left >= right:
                continue
            axes.barh(
                row + lane,
                (right - left) / _S,
                left=(left - start_ns) / _S,
                height=0.82,
                color=SHADES[int(version[index]) % len(SHADES)],
                edgecolor=INK,
                linewidth=0.4,
            )
            inside = stops[(stops > left) & (stops < right)]
            axes.plot(
                (inside - start_ns) / _S, np.full(len(inside), row + lane), "|", color="black",
                markersize=5, markeredgewidth=1.4,
            )  # fmt: skip
        ticks.append(row + (LANES - 1) / 2)
        names.append(f"server {server}")
        row += LANES + 0.8
    row += 0.4
    _trainer(axes, recorder, row, start_ns, end_ns)
    axes.set_yticks([*ticks, row + 0.8], [*names, "trainer"], fontsize=8)
    axes.set_ylim(row + 2.2, -1.0)
    axes.set_xlim(0, length_ns / _S)
    axes.tick_params(axis="y", length=0)


def _trainer(axes: Axes, recorder: RunRecorder, row: float, start_ns: int, end_ns: int) -> None:
    from analysis.drawing import INK

    steps = steps_of(recorder)
    for begin, end, version in zip(
        steps.train_ns.tolist(), steps.end_ns.tolist(), steps.weight_version.tolist(), strict=True
    ):
        left, right = max(begin, start_ns), min(end, end_ns)
        if left < right:
            axes.barh(
                row + 0.8, (right - left) / _S, left=(left - start_ns) / _S, height=1.8,
                color="white", edgecolor=INK, hatch="////", linewidth=0.8,
            )  # fmt: skip
        if start_ns < end < end_ns:
            axes.axvline((end - start_ns) / _S, color=INK, linestyle=":", linewidth=0.9)
            axes.annotate(
                f"v{version}", ((end - start_ns) / _S, 1.0), (0, 1), textcoords="offset points",
                xycoords=axes.get_xaxis_transform(), ha="center", fontsize=7,
            )  # fmt: skip


SKIPPED_STEPS = 2
"""Of start-up; the window begins with the end of the last of them."""
SHOWN_STEPS = 3
"""Of the slowest run, which give the window its length."""


def made_of(shown: Sequence[Shown]) -> Made:
    """Simulate some runs: how many answers are in progress, and one picture of all."""
    recorders = [one.simulate() for one in shown]
    cells = []
    for one, recorder in zip(shown, recorders, strict=True):
        steps = steps_of(recorder)
        start_ns, end_ns = int(steps.end_ns[SKIPPED_STEPS - 1]), int(steps.end_ns[-1])
        busy = (in_flight_mean(recorder, start_ns, end_ns) or 0.0) / IN_FLIGHT
        cells.append(
            Cell(
                name=f"{one.title.partition(':')[0]}: answers in progress, mean",
                unit=f"% of {IN_FLIGHT}",
                published=None,
                simulated=100 * busy,
                basis="predicted",
            )
        )
    return Made(cells=cells, draw=lambda: _draw(shown, recorders))


def _draw(shown: Sequence[Shown], recorders: Sequence[RunRecorder]) -> Figure:
    from analysis.drawing import new_figure

    starts, lengths = [], []
    for recorder in recorders:
        ends = steps_of(recorder).end_ns
        starts.append(int(ends[SKIPPED_STEPS - 1]))
        lengths.append(int(ends[SKIPPED_STEPS + SHOWN_STEPS - 1]) - starts[-1])
    figure = new_figure(10.0, 0.9 + 3.5 * len(shown))
    panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for axes, one, recorder, start_ns in zip(panels, shown, recorders, starts, strict=True):
        draw_lanes(axes, recorder, start_ns, max(lengths))
        axes.set_title(one.title, pad=14)
    panels[-1].set_xlabel("seconds")
    figure.legend(handles=list(handles()), loc="lower center", ncols=4, fontsize=8)
    figure.tight_layout(rect=(0, 0.5 / (0.9 + 3.5 * len(shown)), 1, 1))
    return figure


def handles() -> Sequence[Artist]:
    """What the signs mean, for a legend."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    from analysis.drawing import INK

    def patch(shade: str, label: str, hatch: str = "") -> Patch:
        return Patch(facecolor=shade, edgecolor=INK, linewidth=0.6, label=label, hatch=hatch)

    return [
        patch(SHADES[0], "an answer (shades: the version it began with)"),
        patch("white", "a training step", "////"),
        Line2D([], [], marker="|", linestyle="", color="black", markeredgewidth=1.4,
               label="interrupted, prefilled again"),
        Line2D([], [], linestyle=":", color=INK, label="new weights"),
    ]  # fmt: skip
