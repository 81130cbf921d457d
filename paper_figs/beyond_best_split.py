"""Beyond the paper: which share of the GPUs should generate, per model and cluster size?

The paper gives 75 % to generation everywhere. Each curve is one model on one cluster, AReaL's
schedule, the effective throughput over that at 75 %.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from analysis.drawing import COLOURS, MARKERS
from areal_sched.errors import ConfigError
from areal_sim.config import RunConfig
from areal_sim.published.systems import GPUS_PER_NODE, config_of
from paper_figs.figure import Cell, Made, Results, run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Beyond the paper: the best generation share by model and GPUs"

SIZES: dict[str, tuple[int, ...]] = {
    "1.5b": (64, 128, 256),
    "7b": (96, 192, 384),
    "14b": (128, 256, 512),
    "32b": (192, 384),
}
SHARES = (0.5, 0.625, 0.75, 0.875)
PUBLISHED_SHARE = 0.75
STEPS = 8


def runs() -> dict[str, RunConfig]:
    """Every model, size and share at which servers and trainer both fit."""
    found = {}
    for model, sizes in SIZES.items():
        for gpus in sizes:
            for share in SHARES:
                changes = [
                    f"workload.steps={STEPS}",
                    f"cluster.nodes={gpus // GPUS_PER_NODE}",
                    f"cluster.generation_share={share}",
                ]
                try:
                    found[f"{model} {gpus} {share}"] = config_of(model, "areal", changes)
                except ConfigError:
                    continue  # no whole rank is left for the trainer
    return found


def make(results: Results) -> Made:
    """The best share of each, and what it gains."""
    cells = []
    curves: dict[tuple[str, int], dict[float, float]] = {}
    for model, sizes in SIZES.items():
        for gpus in sizes:
            found = {
                share: float(summary["effective_throughput_tokens_per_s"])
                for share in SHARES
                if (summary := results.get(f"{model} {gpus} {share}")) is not None
            }
            curves[model, gpus] = found
            best = max(found, key=found.__getitem__)
            cells.append(
                Cell(
                    name=f"{model.upper()}, {gpus} GPUs: best of {len(found)} is {best:.1%}, "
                    "gain over 75 %",
                    unit="x",
                    published=None,
                    simulated=found[best] / found[PUBLISHED_SHARE],
                    basis="predicted",
                )
            )
    return Made(cells=cells, draw=lambda: _draw(curves))


def _draw(curves: dict[tuple[str, int], dict[float, float]]) -> Figure:
    from analysis.drawing import FAINT, new_figure

    figure = new_figure(10.0, 3.2)
    panels = figure.subplots(1, len(SIZES), sharey=True)
    for axes, (model, sizes) in zip(panels, SIZES.items(), strict=True):
        for number, gpus in enumerate(sizes):
            found = curves[model, gpus]
            axes.plot(
                [100 * share for share in found],
                [value / found[PUBLISHED_SHARE] for value in found.values()],
                marker=MARKERS[number], color=COLOURS[number], label=f"{gpus} GPUs",
            )  # fmt: skip
        axes.axvline(100 * PUBLISHED_SHARE, color=FAINT, linestyle=":")
        axes.set_title(model.upper())
        axes.set_xlabel("GPUs that generate, %")
        axes.legend(fontsize=7)
    panels[0].set_ylabel("throughput over that at 75 %")
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    sys.exit(run(__name__))
