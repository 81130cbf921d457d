"""What a ``--set`` of a simulation drops of the file.

Some keys exclude each other; setting one drops what the file says for the others:

- ``cluster.generation_share`` and ``cluster.colocated = true``
- ``model.name`` and ``model.config``
- ``workload.preset``, ``workload.trace`` (with its format and resampling) and ``workload.length``
- ``constant`` and the parameters of a distribution, in both tables of lengths

Another ``scheduler.class`` drops the file's scheduler options, which belong to the old one; another
``sim.cost.provider`` drops its file and, where all times come from a file, the factors.
"""

from __future__ import annotations

from areal_sched.config.options import options_of
from areal_sched.config.overrides import KeyPath, Owner, Rules, keys
from areal_sched.config.sections import SCHEDULER_OWNER
from areal_sim.config.simulation import CostConfig
from areal_sim.config.workload import LengthConfig, PromptLengthConfig


def _distribution(cls: type[LengthConfig] | type[PromptLengthConfig]) -> list[KeyPath]:
    return keys(cls.TABLE, *(key for key, _, _ in options_of(cls) if key != "constant"))


def _factors(provider: object) -> tuple[str, ...]:
    """The keys of ``[sim.cost]`` that another provider takes too."""
    return () if provider == "fitted" else CostConfig.further_keys()


RULES = Rules(
    alternatives=(
        (keys("cluster", "generation_share"), keys("cluster", "colocated")),
        (keys("model", "name"), keys("model", "config")),
        (keys("workload", "preset"), keys("workload", "trace"), keys("workload", "length")),
        (keys("workload.length", "constant"), _distribution(LengthConfig)),
        (keys("workload.prompt_length", "constant"), _distribution(PromptLengthConfig)),
    ),
    harmless=((("cluster", "colocated"), False),),
    dependents={("workload", "trace"): keys("workload", "trace_format", "resample")},
    owners=(
        SCHEDULER_OWNER,
        Owner(table=("sim", "cost"), key="provider", default="roofline", kept=_factors),
    ),
)
