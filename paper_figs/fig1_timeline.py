"""Figure 1: why synchronous generation waits, in timelines of two small simulated runs.

Above synchronous, below one-step overlap: both wait for the longest answer of a batch before
servers may go on. 8 GPUs, 7B, answers cut at 8k tokens; six answers of each server are shown.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from areal_sim.config import RunConfig
from paper_figs.figure import Made, Results, run
from paper_figs.lanes import Shown, made_of

if TYPE_CHECKING:
    from collections.abc import Sequence

TITLE = "Figure 1, arXiv 2505.24298: timelines of batch generation, simulated"

SHOWN: Sequence[Shown] = (
    Shown(
        "synchronous: servers wait for the longest answer, then for the trainer",
        ("scheduler.class=synchronous", "limits.eta=0"),
    ),
    Shown(
        "one-step overlap: the trainer works on the batch before, servers still wait",
        ("scheduler.class=one_step_off", "limits.eta=1"),
    ),
)


def runs() -> dict[str, RunConfig]:
    """None: what is drawn is not in a summary."""
    return {}


def make(results: Results) -> Made:
    """Simulate both and draw them."""
    return made_of(SHOWN)


if __name__ == "__main__":
    sys.exit(run(__name__))
