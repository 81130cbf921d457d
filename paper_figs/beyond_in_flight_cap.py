"""Beyond the paper: what the fixed cap of 512 prompts in flight costs on large clusters.

The paper holds at most 512 prompts (8192 answers) in flight whatever the cluster's size; on 512
GPUs few are left for each server. Here the cap is raised, all else as published.
"""

from __future__ import annotations

import sys

from areal_sim.config import RunConfig
from areal_sim.published.systems import GPUS_PER_NODE, config_of
from paper_figs.charts import grouped_bars
from paper_figs.figure import Cell, Made, Results, run

TITLE = "Beyond the paper: the cap on prompts in flight at 256 and 512 GPUs"

MODELS = ("1.5b", "7b")
SIZES = (256, 512)
CAPS = (512, 1024, 2048)
GROUP = 16
STEPS = 10


def runs() -> dict[str, RunConfig]:
    """Every cap on both sizes."""
    return {
        f"{model} {gpus} {cap}": config_of(
            model,
            "areal",
            [
                f"workload.steps={STEPS}",
                f"cluster.nodes={gpus // GPUS_PER_NODE}",
                f"limits.max_rollouts_in_flight={cap * GROUP}",
            ],
        )
        for model in MODELS
        for gpus in SIZES
        for cap in CAPS
    }


def make(results: Results) -> Made:
    """Throughput over that with the published cap, and the lag it costs."""

    def gain(where: str, series: str) -> float:
        model, gpus = where.split(", ")
        found = results[f"{model.lower()} {gpus.split()[0]} {series.split()[0]}"]
        base = results[f"{model.lower()} {gpus.split()[0]} {CAPS[0]}"]
        key = "effective_throughput_tokens_per_s"
        return float(found[key]) / float(base[key])

    places = [f"{model.upper()}, {gpus} GPUs" for model in MODELS for gpus in SIZES]
    caps = [f"{cap} prompts" for cap in CAPS]
    cells = []
    for where in places:
        model, gpus = where.split(", ")
        for cap in caps:
            found = results[f"{model.lower()} {gpus.split()[0]} {cap.split()[0]}"]
            cells.append(
                Cell(
                    name=f"{where}, {cap}: mean lag {found['lag']['mean']:.2f}, "
                    f"training idle {found['idle_share']['training']:.0%}",
                    unit="x of 512",
                    published=None,
                    simulated=gain(where, cap),
                    basis="predicted",
                )
            )
    return Made(
        cells=cells,
        draw=lambda: grouped_bars(
            places,
            caps,
            gain,
            title="Effective throughput by the cap on prompts in flight",
            ylabel="over the published cap of 512",
            label="{:.2f}",
        ),
    )


if __name__ == "__main__":
    sys.exit(run(__name__))
