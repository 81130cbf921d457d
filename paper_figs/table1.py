"""Table 1: training hours of verl, sync.AReaL and AReaL for four models, and both speedups.

Hours are those of all the paper's steps: a few steps are simulated, and the others take the mean of
the steady state. The 1.5B and 14B rows were fitted to, 7B and 32B are predicted. "2.77x" is AReaL
against sync.AReaL; against verl it gains less.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from areal_sim.config import RunConfig
from areal_sim.published.fit import FIT_STEPS, FITTED_MODELS, hours_of
from areal_sim.published.rows import LABELS, SYSTEMS, TABLE_1, Row, System
from areal_sim.published.systems import GPUS_PER_NODE, config_of
from paper_figs.figure import Cell, Made, Results, run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Table 1, arXiv 2505.24298: hours of training, and speedups"

FITTED_WITHIN, PREDICTED_WITHIN, SPEEDUP_WITHIN = 0.05, 0.15, 0.10

COLOURS: dict[System, str] = {"verl": "#009e73", "sync": "#d55e00", "areal": "#0072b2"}


def runs() -> dict[str, RunConfig]:
    """Twelve: four models, three systems."""
    return {
        f"{row.model} {system}": config_of(
            row.model, system, [f"workload.steps={FIT_STEPS[system]}"]
        )
        for row in TABLE_1
        for system in SYSTEMS
    }


def make(results: Results) -> Made:
    """Hours, then speedups against both baselines."""
    hours = {
        (row.model, system): hours_of(results[f"{row.model} {system}"], row.steps)
        for row in TABLE_1
        for system in SYSTEMS
    }
    cells = [
        Cell(
            name=f"{_label(row)}, {LABELS[system]}",
            unit="h",
            published=row.hours[system],
            simulated=hours[row.model, system],
            basis="fitted" if row.model in FITTED_MODELS else "predicted",
            within=FITTED_WITHIN if row.model in FITTED_MODELS else PREDICTED_WITHIN,
        )
        for row in TABLE_1
        for system in SYSTEMS
    ]
    predicted = [abs(cell.error or 0.0) for cell in cells if cell.basis == "predicted"]
    baselines: tuple[System, ...] = ("sync", "verl")
    for baseline in baselines:
        for row in TABLE_1:
            ours = hours[row.model, baseline] / hours[row.model, "areal"]
            cells.append(
                Cell(
                    name=f"{row.model.upper()}, AReaL over {LABELS[baseline]}",
                    unit="x",
                    published=row.hours[baseline] / row.hours["areal"],
                    simulated=ours,
                    basis="fitted" if row.model in FITTED_MODELS else "predicted",
                    within=SPEEDUP_WITHIN,
                )
            )
    mean = sum(predicted) / len(predicted)
    notes = [f"mean error of the predicted hours: {100 * mean:.1f} % (bar 10.0 %)"]
    return Made(cells=cells, notes=notes, draw=lambda: _draw(hours))


def markdown(hours: Mapping[tuple[str, System], float]) -> str:
    """The table as the README shows it: simulated hours, published ones in brackets."""
    lines = [
        "| simulated hours (published) | verl | sync.AReaL | AReaL | over sync.AReaL | basis |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for row in TABLE_1:
        ours = {system: hours[row.model, system] for system in SYSTEMS}
        times = [f"{ours[system]:.1f} ({row.hours[system]:.1f})" for system in SYSTEMS]
        speedup = ours["sync"] / ours["areal"]
        told = f"{speedup:.2f}x ({row.hours['sync'] / row.hours['areal']:.2f}x)"
        basis = "fitted" if row.model in FITTED_MODELS else "predicted"
        lines.append(" | ".join([f"| {_label(row)}", *times, told, f"{basis} |"]))
    return "\n".join(lines) + "\n"


def _label(row: Row) -> str:
    return f"{row.model.upper()} {row.task}, {row.nodes * GPUS_PER_NODE} GPUs"


def _draw(hours: dict[tuple[str, System], float]) -> Figure:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    from analysis.drawing import INK, new_figure

    figure = new_figure(8.0, 3.6)
    axes = figure.add_subplot()
    places = np.arange(len(TABLE_1), dtype=float)
    for number, system in enumerate(SYSTEMS):
        at = places + (number - 1) * 0.27
        values = [hours[row.model, system] for row in TABLE_1]
        published = [row.hours[system] for row in TABLE_1]
        hatches = ["" if row.model in FITTED_MODELS else "////" for row in TABLE_1]
        bars = axes.bar(at, values, 0.25, color=COLOURS[system], edgecolor="white", hatch=hatches)
        axes.plot(at, published, "D", color="white", markeredgecolor=INK, markersize=5)
        for bar, value in zip(bars, values, strict=True):
            middle = bar.get_x() + bar.get_width() / 2
            axes.annotate(
                f"{value:.1f}", (middle, 0), (0, 3), textcoords="offset points", ha="center",
                color="white", fontsize=8, fontweight="bold",
                bbox={"facecolor": COLOURS[system], "edgecolor": "none", "pad": 1.5},
            )  # fmt: skip
    axes.set_xticks(places, [_label(row) for row in TABLE_1])
    axes.set_ylabel("hours of training")
    axes.set_title("Table 1: simulated hours (bars) and published ones (diamonds)")
    handles: list[Line2D | Patch] = [
        Patch(facecolor=COLOURS[system], label=LABELS[system]) for system in SYSTEMS
    ]
    handles.append(Patch(facecolor="#bbbbbb", hatch="////", edgecolor="white", label="predicted"))
    handles.append(
        Line2D([], [], marker="D", linestyle="", color="white", markeredgecolor=INK,
               label="published")
    )  # fmt: skip
    axes.legend(handles=handles, ncols=5, loc="upper left", fontsize=8)
    axes.set_ylim(0, 1.18 * max(*hours.values(), *(max(row.hours.values()) for row in TABLE_1)))
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    sys.exit(run(__name__))
