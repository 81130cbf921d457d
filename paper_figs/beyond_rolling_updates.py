"""Beyond the paper: rolling weight updates instead of a global barrier.

With the barrier, servers that have their new weights wait for the last one to have them; rolling,
each goes on by itself. All load at once either way.
"""

from __future__ import annotations

import sys

from areal_sim.config import RunConfig
from paper_figs.figure import Made, Results, run
from paper_figs.variants import Variants, made_of, runs_of

TITLE = "Beyond the paper: rolling instead of global weight updates"

VARIANTS: Variants = {
    "barrier": ("scheduler.resume_after=load", "scheduler.barrier=true"),
    "rolling": ("scheduler.resume_after=load", "scheduler.barrier=false"),
    "in place": ("scheduler.class=in_flight",),
}


def runs() -> dict[str, RunConfig]:
    """Every variant of every model."""
    return runs_of(VARIANTS)


def make(results: Results) -> Made:
    """Throughputs side by side."""
    return made_of(results, VARIANTS, "Effective throughput by kind of weight update")


if __name__ == "__main__":
    sys.exit(run(__name__))
