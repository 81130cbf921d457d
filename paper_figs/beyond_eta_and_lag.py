"""Beyond the paper: eta bounds what may be started; the lag that is trained on is something else.

Eta at admission (paper eq. 3) against the mean and the largest lag of the trajectories that were
trained, for the runs of Figure 5c.
"""

from __future__ import annotations

import sys

from areal_sim.config import RunConfig
from paper_figs import fig5c_staleness_throughput as fig5c
from paper_figs.charts import grouped_bars
from paper_figs.figure import Cell, Made, Results, run

TITLE = "Beyond the paper: eta at admission against the lag trained on, 1.5B math"


def runs() -> dict[str, RunConfig]:
    """Those of Figure 5c."""
    return fig5c.runs()


def make(results: Results) -> Made:
    """Mean and largest lag by eta."""
    cells = [
        Cell(
            name=f"{variant}, eta {eta}, {which} lag",
            unit="versions",
            published=None,
            simulated=float(results[f"{variant} {eta}"]["lag"][key]),
            basis="predicted",
        )
        for variant in fig5c.VARIANTS
        for eta in fig5c.ETAS
        for which, key in (("mean", "mean"), ("largest", "max"))
    ]

    def lag(eta: str, series: str) -> float:
        variant, which = series.split(", ")
        key = {"mean": "mean", "largest": "max"}[which]
        return float(results[f"{variant} {eta}"]["lag"][key])

    series = [f"{variant}, {which}" for variant in fig5c.VARIANTS for which in ("mean", "largest")]
    return Made(
        cells=cells,
        draw=lambda: grouped_bars(
            list(fig5c.ETAS),
            series,
            lag,
            title="Lag of what was trained on, by eta",
            xlabel="eta",
            ylabel="lag, versions",
            label="{:.1f}",
            width=9.0,
        ),
    )


if __name__ == "__main__":
    sys.exit(run(__name__))
