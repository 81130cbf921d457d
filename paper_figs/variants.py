"""Figures that compare a few ways to run the paper's AReaL runs, all else equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from areal_sim.config import RunConfig
from areal_sim.published.systems import config_of
from paper_figs.charts import grouped_bars
from paper_figs.figure import Cell, Made, Results

STEPS = 12
MODELS = ("1.5b", "7b", "14b", "32b")

Variants = Mapping[str, Sequence[str]]
"""Changes to the published run by name; the first is what others are compared with."""


def runs_of(variants: Variants, models: Sequence[str] = MODELS) -> dict[str, RunConfig]:
    """Every variant of every model's row of Table 1."""
    return {
        f"{model} {name}": config_of(model, "areal", [f"workload.steps={STEPS}", *changes])
        for model in models
        for name, changes in variants.items()
    }


def made_of(
    results: Results, variants: Variants, title: str, models: Sequence[str] = MODELS
) -> Made:
    """Throughput of each variant over that of the first, with lag and idle servers."""
    first = next(iter(variants))

    def over(model: str, name: str) -> float:
        model = model.lower()
        key = "effective_throughput_tokens_per_s"
        return float(results[f"{model} {name}"][key]) / float(results[f"{model} {first}"][key])

    cells = []
    for model in models:
        for name in variants:
            found = results[f"{model} {name}"]
            cells.append(
                Cell(
                    name=f"{model.upper()}, {name}: mean lag {found['lag']['mean']:.2f}, "
                    f"servers idle {found['idle_share']['generation']:.1%}",
                    unit=f"x of {first}",
                    published=None,
                    simulated=over(model, name),
                    basis="predicted",
                )
            )
    return Made(
        cells=cells,
        draw=lambda: grouped_bars(
            [model.upper() for model in models],
            list(variants),
            over,
            title=title,
            ylabel=f"throughput over {first}",
            label="{:.2f}",
        ),
    )
