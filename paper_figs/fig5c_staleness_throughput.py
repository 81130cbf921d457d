"""Figure 5c: effective throughput against eta, for 1.5B math on 128 GPUs and on 8.

The published values were not used, and are not known to this program: all of it is prediction. The
8-GPU variant has 8k context and trains on 64 prompts of 16 answers a step.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from areal_sim.config import RunConfig
from areal_sim.published.systems import config_of
from paper_figs.figure import Cell, Made, Results, run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Figure 5c, arXiv 2505.24298: effective throughput by staleness bound, 1.5B math"

ETAS: tuple[str, ...] = ("0", "1", "2", "4", "8", "16", "inf")
STEPS = 24
VARIANTS: dict[str, tuple[str, ...]] = {
    "128 GPUs": (),
    "8 GPUs": (
        "cluster.nodes=1",
        "workload.prompts_per_step=64",
        "workload.max_response_tokens=7168",
    ),
}


def runs() -> dict[str, RunConfig]:
    """Every eta, on both clusters."""
    return {
        f"{variant} {eta}": config_of(
            "1.5b", "areal", [f"workload.steps={STEPS}", f"limits.eta={eta}", *changes]
        )
        for variant, changes in VARIANTS.items()
        for eta in ETAS
    }


def make(results: Results) -> Made:
    """Throughput of every eta, and over that of eta 0."""

    def throughput(variant: str, eta: str) -> float:
        return float(results[f"{variant} {eta}"]["effective_throughput_tokens_per_s"])

    cells = []
    for variant in VARIANTS:
        for eta in ETAS:
            value = throughput(variant, eta)
            over = value / throughput(variant, "0")
            lag = results[f"{variant} {eta}"]["lag"]["mean"]
            cells.append(
                Cell(
                    name=f"{variant}, eta {eta}: {over:.2f}x of eta 0, mean lag {lag:.2f}",
                    unit="tokens/s",
                    published=None,
                    simulated=value,
                    basis="predicted",
                )
            )
    return Made(cells=cells, draw=lambda: _draw(results))


def _draw(results: Results) -> Figure:
    from analysis.drawing import SECOND, SERIES, new_figure

    figure = new_figure(8.0, 3.3)
    panels = figure.subplots(1, len(VARIANTS))
    for axes, variant in zip(panels, VARIANTS, strict=True):
        found = [results[f"{variant} {eta}"] for eta in ETAS]
        places = list(range(len(ETAS)))
        values = [row["effective_throughput_tokens_per_s"] / 1e3 for row in found]
        axes.bar(places, values, 0.7, color=SERIES)
        axes.set_xticks(places, ["∞" if eta == "inf" else eta for eta in ETAS])
        axes.set_xlabel("eta")
        axes.set_ylabel("effective throughput, thousand tokens/s", color=SERIES, fontsize=8)
        axes.set_title(variant)
        lags = axes.twinx()
        lags.plot(places, [row["lag"]["mean"] for row in found], "o--", color=SECOND)
        lags.set_ylim(bottom=0)
        lags.set_ylabel("mean lag trained on, versions", color=SECOND, fontsize=8)
        lags.spines["right"].set_visible(True)
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    sys.exit(run(__name__))
