"""Figure 4: effective throughput from 32 to 512 GPUs, AReaL against verl, two context lengths.

The paper's tokens/s are below what its own Table 1 implies, with the lengths assumed here 1.5 to
4.5 times, so only ratios are compared: AReaL over verl at the same number of GPUs, and each curve's
scaling efficiency, which is throughput at its largest number of GPUs over linear scaling from its
smallest. Nothing was fitted to the figure, but one of its points is almost a fitted row of Table 1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from areal_sim.config import RunConfig
from areal_sim.published.fit import FIT_STEPS
from areal_sim.published.rows import FIGURE_4, LABELS, System
from areal_sim.published.systems import GPUS_PER_NODE, config_of
from paper_figs.figure import Cell, Made, Results, run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Figure 4, arXiv 2505.24298: scaling of effective throughput, 32 to 512 GPUs"

FITTED_POINT = ("1.5b", 32_768, 128)
"""The set-up of a fitted row of Table 1, but that answers may have 31,744 tokens, not 27,648."""

RATIO_WITHIN, EFFICIENCY_WITHIN = 0.15, 0.10

COLOURS: dict[System, str] = {"verl": "#009e73", "areal": "#0072b2"}
MARKERS: dict[System, str] = {"verl": "s", "areal": "o"}

PROMPT_TOKENS = 1024


def runs() -> dict[str, RunConfig]:
    """Every point that the paper has a number for."""
    return {
        _name(model, context, system, gpus): config_of(
            model,
            system,
            [
                f"workload.steps={FIT_STEPS[system]}",
                f"cluster.nodes={gpus // GPUS_PER_NODE}",
                f"workload.max_response_tokens={context - PROMPT_TOKENS}",
            ],
        )
        for (model, context, system), points in FIGURE_4.items()
        for gpus, published in points.items()
        if published is not None
    }


def _name(model: str, context: int, system: System, gpus: int) -> str:
    return f"{model} {context} {system} {gpus}"


def make(results: Results) -> Made:
    """Ratios at every number of GPUs, then scaling efficiencies."""

    def throughput(model: str, context: int, system: System, gpus: int) -> float:
        found = results[_name(model, context, system, gpus)]
        return float(found["effective_throughput_tokens_per_s"])

    curves = [(model, context) for model, context, system in FIGURE_4 if system == "areal"]
    cells: list[Cell] = []
    for model, context in curves:
        areal = FIGURE_4[model, context, "areal"]
        for gpus, verl in FIGURE_4[model, context, "verl"].items():
            if verl is None:
                continue
            ours = throughput(model, context, "areal", gpus) / throughput(
                model, context, "verl", gpus
            )
            cells.append(
                Cell(
                    name=f"{_curve(model, context)}, {gpus} GPUs, AReaL over verl",
                    unit="x",
                    published=(areal[gpus] or 0.0) / verl,
                    simulated=ours,
                    basis="fitted" if (model, context, gpus) == FITTED_POINT else "predicted",
                )
            )
    errors = [abs(cell.error or 0.0) for cell in cells if cell.basis == "predicted"]
    systems: tuple[System, ...] = ("areal", "verl")
    for system in systems:
        for model, context in curves:
            points = {g: v for g, v in FIGURE_4[model, context, system].items() if v is not None}
            if not points:
                continue
            few, many = min(points), max(points)
            linear = many / few
            ours = throughput(model, context, system, many) / throughput(
                model, context, system, few
            )
            cells.append(
                Cell(
                    name=f"{_curve(model, context)}, {LABELS[system]}, {few} to {many} GPUs",
                    unit="of linear",
                    published=points[many] / points[few] / linear,
                    simulated=ours / linear,
                    basis="predicted",
                    within=EFFICIENCY_WITHIN,
                    points=True,
                )
            )
    mean = sum(errors) / len(errors)
    verdict = "ok" if mean <= RATIO_WITHIN else "miss"
    notes = [
        f"mean error of the predicted ratios AReaL over verl: {100 * mean:.1f} % "
        f"(bar {100 * RATIO_WITHIN:.0f} %: {verdict})",
        "32B at 32,768 tokens: verl ran out of memory in the paper; there is nothing to compare",
    ]
    return Made(cells=cells, notes=notes, draw=lambda: _draw(throughput))


def _curve(model: str, context: int) -> str:
    return f"{model.upper()} {context // 1024}k"


def _draw(of: Callable[[str, int, System, int], float]) -> Figure:
    from matplotlib.ticker import LogLocator

    from analysis.drawing import FAINT, new_figure

    models = list(dict.fromkeys(model for model, _, _ in FIGURE_4))
    contexts = list(dict.fromkeys(context for _, context, _ in FIGURE_4))
    figure = new_figure(3.4 * len(models), 3.0 * len(contexts))
    panels = figure.subplots(len(contexts), len(models), squeeze=False)
    for line, context in zip(panels, contexts, strict=True):
        for axes, model in zip(line, models, strict=True):
            published = FIGURE_4[model, context, "areal"]
            first = min(published)
            base = of(model, context, "areal", first)
            # One factor for a panel makes the two units meet where AReaL's curve begins.
            factor = base / (published[first] or 1.0)
            for system in COLOURS:
                points = FIGURE_4[model, context, system]
                there = [gpus for gpus, value in points.items() if value is not None]
                if not there:
                    axes.text(0.5, 0.1, "verl: out of memory", transform=axes.transAxes,
                              color=FAINT)  # fmt: skip
                    continue
                axes.plot(
                    there,
                    [of(model, context, system, gpus) / 1e3 for gpus in there],
                    color=COLOURS[system],
                    label=f"{LABELS[system]}, simulated",
                )
                axes.plot(
                    there,
                    [(points[gpus] or 0.0) * factor / 1e3 for gpus in there],
                    MARKERS[system],
                    color="white",
                    markeredgecolor=COLOURS[system],
                    label=f"{LABELS[system]}, published (scaled)",
                )
            axes.plot(
                list(published), [base * gpus / first / 1e3 for gpus in published],
                ":", color=FAINT, label="linear",
            )  # fmt: skip
            axes.set_xscale("log", base=2)
            axes.set_yscale("log", base=2)
            axes.set_xticks(list(published), [str(gpus) for gpus in published])
            axes.minorticks_off()
            axes.yaxis.set_major_locator(LogLocator(base=2, subs=(1.0, 1.5)))
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
            axes.set_title(f"{model.upper()}, {context // 1024}k context")
    for axes in panels[-1]:
        axes.set_xlabel("GPUs")
    for line in panels:
        line[0].set_ylabel("thousand tokens/s")
    panels[0][0].legend(fontsize=7)
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    sys.exit(run(__name__))
