"""Beyond the paper: routing prompts by load instead of in turn.

Round-robin knows nothing of the servers; least loaded counts the answers on each, least KV the
tokens they hold.
"""

from __future__ import annotations

import sys

from areal_sim.config import RunConfig
from paper_figs.figure import Made, Results, run
from paper_figs.variants import Variants, made_of, runs_of

TITLE = "Beyond the paper: load-aware routing of prompts to servers"

VARIANTS: Variants = {
    "round_robin": ("scheduler.routing=round_robin",),
    "least_loaded": ("scheduler.routing=least_loaded",),
    "least_kv": ("scheduler.routing=least_kv",),
}


def runs() -> dict[str, RunConfig]:
    """Every variant of every model."""
    return runs_of(VARIANTS)


def make(results: Results) -> Made:
    """Throughputs side by side."""
    return made_of(results, VARIANTS, "Effective throughput by routing")


if __name__ == "__main__":
    sys.exit(run(__name__))
