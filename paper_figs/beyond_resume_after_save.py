"""Beyond the paper: what it costs to resume generation only after save and evaluation.

The released system keeps servers paused from the start of a weight update until the trainer has
saved, checkpointed, evaluated and logged. Here they go on once they have the weights.
"""

from __future__ import annotations

import sys

from areal_sim.config import RunConfig
from paper_figs.figure import Made, Results, run
from paper_figs.variants import Variants, made_of, runs_of

TITLE = "Beyond the paper: resuming generation after save and evaluation, or after loading"

VARIANTS: Variants = {
    "after saving": ("scheduler.resume_after=evaluation",),
    "after loading": ("scheduler.resume_after=load",),
}


def runs() -> dict[str, RunConfig]:
    """Every variant of every model."""
    return runs_of(VARIANTS)


def make(results: Results) -> Made:
    """Throughputs side by side."""
    return made_of(results, VARIANTS, "Effective throughput by when generation resumes")


if __name__ == "__main__":
    sys.exit(run(__name__))
