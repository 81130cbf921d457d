"""Table 2: published scores by staleness bound, over the simulated hours they would take.

An empirical overlay, not a prediction of scores: what a model scored after 250 steps is the
paper's, how long the steps take at that eta is ours.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from areal_sim.config import RunConfig
from areal_sim.published.fit import hours_of
from areal_sim.published.rows import BENCHMARKS, TABLE_2
from areal_sim.published.systems import row_of
from paper_figs import fig5c_staleness_throughput as fig5c
from paper_figs.figure import Cell, Made, Results, run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Table 2, arXiv 2505.24298: published scores, and simulated hours to them, by eta"

VARIANT = "128 GPUs"
OBJECTIVES = ("naive", "decoupled")
COLOURS = {"naive": "#d55e00", "decoupled": "#0072b2"}
OUTLIER = 4
"""The naive objective's score at this eta is one seed, far below its neighbours."""


def runs() -> dict[str, RunConfig]:
    """The 128-GPU runs of Figure 5c."""
    return {name: config for name, config in fig5c.runs().items() if name.startswith(VARIANT)}


def _eta(text: str) -> int | None:
    return None if text == "inf" else int(text)


def _scores(eta: int | None, objective: str) -> tuple[float, ...] | None:
    return TABLE_2.get((eta, objective), TABLE_2.get((eta, "either")))


def make(results: Results) -> Made:
    """Hours by eta; below them what the paper scored."""
    steps = row_of("1.5b").steps
    hours = {eta: hours_of(results[f"{VARIANT} {eta}"], steps) for eta in fig5c.ETAS}
    cells = [
        Cell(
            name=f"eta {eta}: hours of {steps} steps",
            unit="h",
            published=None,
            simulated=hours[eta],
            basis="overlay",
        )
        for eta in fig5c.ETAS
    ]
    notes = [f"published scores after {steps} steps, %:  {'  '.join(BENCHMARKS)}"]
    for eta in fig5c.ETAS:
        for objective in OBJECTIVES:
            scores = _scores(_eta(eta), objective) or ()
            values = "  ".join(
                f"{score:{len(name)}.1f}" for score, name in zip(scores, BENCHMARKS, strict=True)
            )
            outlier = "  (one seed)" if (eta, objective) == (str(OUTLIER), "naive") else ""
            notes.append(f"  eta {eta:>3}, {objective:<10} {hours[eta]:5.1f} h  {values}{outlier}")
    return Made(cells=cells, notes=notes, draw=lambda: _draw(hours))


def _draw(hours: dict[str, float]) -> Figure:
    from analysis.drawing import FAINT, new_figure

    figure = new_figure(12.0, 3.2)
    panels = figure.subplots(1, len(BENCHMARKS))
    places = range(len(fig5c.ETAS))
    for column, (axes, name) in enumerate(zip(panels, BENCHMARKS, strict=True)):
        bars = axes.twinx()
        bars.bar(places, [hours[eta] for eta in fig5c.ETAS], 0.7, color="#dddddd")
        bars.set_ylim(0, 2.2 * max(hours.values()))
        bars.tick_params(axis="y", labelcolor=FAINT, labelsize=7)
        if column == len(BENCHMARKS) - 1:
            bars.set_ylabel("simulated hours", color=FAINT, fontsize=8)
        axes.set_zorder(bars.get_zorder() + 1)  # lines before bars
        axes.patch.set_visible(False)
        for objective in OBJECTIVES:
            found = [_scores(_eta(eta), objective) or () for eta in fig5c.ETAS]
            axes.plot(
                places,
                [scores[column] for scores in found],
                "o-" if objective == "decoupled" else "s--",
                color=COLOURS[objective],
                label=f"{objective}, published",
            )
        axes.set_title(name)
        axes.set_xlabel("eta")
        axes.set_xticks(places, ["\u221e" if eta == "inf" else eta for eta in fig5c.ETAS])
    panels[0].set_ylabel("published score, %")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncols=2, fontsize=8)
    figure.suptitle(
        "Published scores (lines) and simulated hours (bars); naive at eta 4 is one seed",
        fontsize=9,
    )
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    return figure


if __name__ == "__main__":
    sys.exit(run(__name__))
