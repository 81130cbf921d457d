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
from areal_sim.published.systems import config_of
from areal_sim.rundir import simulate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMALL = (
    # Eight GPUs, so that single answers can be seen. Answers are cut at 8k tokens.
    "cluster.nodes=1",
    "workload.prompts_per_step=8",
    "workload.max_response_tokens=8192",
    "workload.steps=7",
)
HALF = ("cluster.generation_share=0.5",)
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


def window_of(recorder: RunRecorder, skip: int) -> int:
    """Where to begin: the end of the step after which a run is shown; 0 skips none."""
    return 0 if not skip else int(steps_of(recorder).end_ns[skip - 1])


def handles() -> Sequence[object]:
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
