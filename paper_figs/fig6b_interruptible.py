"""Figure 6b: generation throughput with and without interruption, 1.5B and 7B on 4 nodes.

Without, servers finish the answers they have begun before they take in new weights, so that each
waits for its longest one. The figure is about generation, so eta is unbounded here: servers never
wait for the trainer, as they would for 7B with eta 8. Nothing was fitted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from areal_sim.config import RunConfig
from areal_sim.published.rows import FIGURE_6B, FIGURE_6B_NODES
from areal_sim.published.systems import config_of
from paper_figs.figure import Cell, Made, Results, run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Figure 6b, arXiv 2505.24298: interruptible over non-interruptible generation, 4 nodes"

GAIN_WITHIN = 0.05
STEPS = 16
MODES = {"interrupt": "interruptible", "drain": "not interruptible"}
COLOURS = {"interrupt": "#0072b2", "drain": "#d55e00"}


def runs() -> dict[str, RunConfig]:
    """Both modes of both models."""
    return {
        f"{model} {mode}": config_of(
            model,
            "areal",
            [
                f"workload.steps={STEPS}",
                f"cluster.nodes={FIGURE_6B_NODES}",
                f"scheduler.mode={mode}",
                "limits.eta=inf",
            ],
        )
        for model in FIGURE_6B
        for mode in MODES
    }


def make(results: Results) -> Made:
    """Gains, with the throughputs behind them."""

    def tokens_per_s(model: str, mode: str) -> float:
        return float(results[f"{model} {mode}"]["generated_tokens_per_s"])

    cells = [
        Cell(
            name=f"{model.upper()}, interruptible over not",
            unit="x",
            published=published,
            simulated=tokens_per_s(model, "interrupt") / tokens_per_s(model, "drain"),
            basis="predicted",
            within=GAIN_WITHIN,
            points=True,
        )
        for model, published in FIGURE_6B.items()
    ]
    cells += [
        Cell(
            name=f"{model.upper()}, {name}",
            unit="tokens/s",
            published=None,
            simulated=tokens_per_s(model, mode),
            basis="predicted",
        )
        for model in FIGURE_6B
        for mode, name in MODES.items()
    ]
    return Made(cells=cells, draw=lambda: _draw(tokens_per_s))


def _draw(of: Callable[[str, str], float]) -> Figure:
    from analysis.drawing import new_figure

    figure = new_figure(6.0, 3.2)
    axes = figure.add_subplot()
    for number, (mode, name) in enumerate(MODES.items()):
        places = [place + (number - 0.5) * 0.36 for place in range(len(FIGURE_6B))]
        values = [of(model, mode) / 1e3 for model in FIGURE_6B]
        axes.bar(places, values, 0.34, color=COLOURS[mode], label=name)
    for place, (model, published) in enumerate(FIGURE_6B.items()):
        ours = of(model, "interrupt") / of(model, "drain")
        top = max(of(model, mode) for mode in MODES) / 1e3
        axes.annotate(
            f"{ours:.2f}x, published {published:.2f}x", (place, top), (0, 4),
            textcoords="offset points", ha="center", fontsize=8,
        )  # fmt: skip
    axes.set_xticks(range(len(FIGURE_6B)), [model.upper() for model in FIGURE_6B])
    axes.set_ylabel("generated, thousand tokens/s")
    axes.set_title("Figure 6b: generation with and without interruption")
    axes.margins(y=0.15)
    axes.legend(loc="upper right")
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    sys.exit(run(__name__))
