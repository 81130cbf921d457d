"""Every table and figure of the AReaL paper about speed, and some beyond it (arXiv 2505.24298).

All simulations run in one sweep, in parallel, and are kept: after Ctrl-C the same command goes on
where it was. Each table is compared with what is expected, which lies in paper_figs/expected.
"""

from __future__ import annotations

import sys
from typing import Any

from paper_figs import (
    assumptions,
    beyond_best_split,
    beyond_eta_and_lag,
    beyond_in_flight_cap,
    beyond_resume_after_save,
    beyond_rolling_updates,
    beyond_routing,
    fig1_timeline,
    fig3_generation,
    fig4_scaling,
    fig5c_staleness_throughput,
    fig6a_micro_batching,
    fig6b_interruptible,
    table1,
    table2_staleness_scores,
)
from paper_figs.figure import produce

MODULES: tuple[Any, ...] = (
    table1,
    fig1_timeline,
    fig3_generation,
    fig4_scaling,
    fig5c_staleness_throughput,
    fig6a_micro_batching,
    fig6b_interruptible,
    table2_staleness_scores,
    beyond_best_split,
    beyond_in_flight_cap,
    beyond_resume_after_save,
    beyond_rolling_updates,
    beyond_routing,
    beyond_eta_and_lag,
    assumptions,
)

if __name__ == "__main__":
    sys.exit(produce(MODULES, None, "python -m paper_figs", __doc__ or ""))
