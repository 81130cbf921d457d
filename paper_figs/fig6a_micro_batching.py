"""Figure 6a: training throughput with dynamic and with static micro-batches.

Dynamic is the paper's Algorithm 1, and beside it the first-fit-decreasing variant that is in
circulation under its name. Static is 32 micro-batches by count. Sampled answers are packed, and the
trainer's model pays for the packs: unequal micro-batches make the stages of a pipeline wait. The
TFLOP/s of Algorithm 1 and of static were fitted to, for a common level; no number is there for the
gain.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from areal_sim.config import RunConfig
from areal_sim.published.rows import FIGURE_6A
from areal_sim.published.systems import GPUS_PER_NODE
from areal_sim.published.trainer import METHODS, Method, Training, train
from paper_figs.figure import Cell, Made, Results, run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Figure 6a, arXiv 2505.24298: TFLOP/s per GPU, dynamic against static micro-batches"

GAIN_WITHIN = 0.05

NAMES: dict[Method, str] = {
    "algorithm_1": "Algorithm 1",
    "first_fit_decreasing": "first-fit decreasing",
    "static": "static",
}
COLOURS: dict[Method, str] = {
    "algorithm_1": "#0072b2",
    "first_fit_decreasing": "#56b4e9",
    "static": "#d55e00",
}


def runs() -> dict[str, RunConfig]:
    """None: only the trainer is looked at."""
    return {}


def make(results: Results) -> Made:
    """TFLOP/s of every bar, then gains."""
    found = {(case.model, method): train(case, method) for case in FIGURE_6A for method in METHODS}
    cells = []
    for case in FIGURE_6A:
        published = {"algorithm_1": case.dynamic, "static": case.static}
        for method in METHODS:
            ours = found[case.model, method]
            cells.append(
                Cell(
                    name=f"{case.model.upper()}, {case.nodes * GPUS_PER_NODE} GPUs, "
                    f"{NAMES[method]} ({ours.micro_batches:.0f} micro-batches)",
                    unit="TFLOP/s",
                    published=published.get(method),
                    simulated=ours.tflops,
                    basis="fitted" if method in published else "predicted",
                )
            )
    for case in FIGURE_6A:
        gain = found[case.model, "algorithm_1"].tflops / found[case.model, "static"].tflops
        cells.append(
            Cell(
                name=f"{case.model.upper()}, Algorithm 1 over static",
                unit="x",
                published=case.gain,
                simulated=gain,
                basis="fitted",
                within=GAIN_WITHIN,
                points=True,
            )
        )
    return Made(cells=cells, draw=lambda: _draw(found))


def _draw(found: dict[tuple[str, Method], Training]) -> Figure:
    from matplotlib.lines import Line2D

    from analysis.drawing import INK, new_figure

    figure = new_figure(7.5, 3.4)
    axes = figure.add_subplot()
    for number, method in enumerate(METHODS):
        for place, case in enumerate(FIGURE_6A):
            at = place + (number - 1) * 0.27
            axes.bar(
                at,
                found[case.model, method].tflops,
                0.25,
                color=COLOURS[method],
                label=NAMES[method] if not place else None,
            )
            published = {"algorithm_1": case.dynamic, "static": case.static}.get(method)
            if published is not None:
                axes.plot(at, published, "D", color="white", markeredgecolor=INK, markersize=5)
    labels = [f"{c.model.upper()}, {c.nodes * GPUS_PER_NODE} GPUs" for c in FIGURE_6A]
    axes.set_xticks(range(len(FIGURE_6A)), labels)
    axes.set_ylabel("TFLOP/s per GPU")
    axes.set_title("Figure 6a: micro-batching (bars: simulated)")
    handles, _ = axes.get_legend_handles_labels()
    diamond = Line2D([], [], marker="D", linestyle="", color="white", markeredgecolor=INK,
                     label="published")  # fmt: skip
    axes.set_ylim(0, 640)
    axes.legend(handles=[*handles, diamond], ncols=4, fontsize=8, loc="upper left")
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    sys.exit(run(__name__))
