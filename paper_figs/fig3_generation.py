"""Figure 3: AReaL generates all the time, in the timeline of a small simulated run.

New weights interrupt answers where they are (ticks), which go on with the new version after a
prefill; the trainer starts a step whenever a batch is complete. 8 GPUs, 7B, answers cut at 8k
tokens; six answers of each server are shown.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from areal_sim.config import RunConfig
from paper_figs.figure import Made, Results, run
from paper_figs.lanes import Shown, made_of

if TYPE_CHECKING:
    from collections.abc import Sequence

TITLE = "Figure 3, arXiv 2505.24298: generation in AReaL, simulated"

SHOWN: Sequence[Shown] = (
    Shown(
        "AReaL: servers generate all the time, new weights interrupt them",
        ("limits.eta=4", "limits.max_rollouts_in_flight=128", "scheduler.resume_after=load"),
    ),
)


def runs() -> dict[str, RunConfig]:
    """None: what is drawn is not in a summary."""
    return {}


def make(results: Results) -> Made:
    """Simulate and draw."""
    return made_of(SHOWN)


if __name__ == "__main__":
    sys.exit(run(__name__))
