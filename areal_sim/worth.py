"""What all of a run comes to, from a simulation of a part of it: hours, money, energy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from areal_sim.config import RunConfig

S_PER_HOUR = 3600

BOTH_WAIT = 0.05
"""Servers without work and a trainer without a batch for more than this: something else limits."""

FEW_STEPS = 4
"""Of so few there is no steady state: each counts."""

OF_SERVERS = (
    *("decode", "prefill", "recompute", "load_weights", "paused", "idle_generation", "server_down"),
)
"""Causes of GPU time that servers hold (`analysis.causes`)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """What a run comes to.

    Attributes:
        hours: from start to the last step.
        gpu_hours: hours times all GPUs of the cluster.
        cost_usd: what these cost.
        energy_kwh: what they draw.
    """

    hours: float
    gpu_hours: float
    cost_usd: float
    energy_kwh: float

    def value(self, objective: str) -> float:
        """One of them, by the name an objective has; ``gpus`` is the number of GPUs."""
        return {
            "hours": self.hours,
            "cost": self.cost_usd,
            "energy": self.energy_kwh,
            "gpu-hours": self.gpu_hours,
            "gpus": self.gpu_hours / self.hours,
        }[objective]


def steady_step_s(config: RunConfig, summary: Mapping[str, Any], mean_tokens: float) -> float:
    """A training step of a long run, from the summary of a short run or of a slice of it.

    The mean of a short run's steps will not do: answers that are short come first, and what was
    started together finishes in waves that last for dozens of steps. But in a long run as many
    tokens are generated as are trained, and the rate of generation settles at once. So does the
    time that the trainer works for a token, which counts in runs that it limits.

    Args:
        config: what was simulated.
        summary: of that.
        mean_tokens: of an answer.
    """
    if summary["discarded_trajectories"]:
        return step_of(summary)  # not all that is generated is trained
    tokens = config.train_batch_rollouts / config.sim.slice * mean_tokens
    idle = {side: float(summary["idle_share"][side]) for side in ("generation", "training")}
    by_generation_s = tokens / float(summary["generated_tokens_per_s"])
    by_training_s = tokens / float(summary["effective_throughput_tokens_per_s"])
    limit_s = max(by_generation_s, (1 - idle["training"]) * by_training_s)
    shares = summary["gpu_time_share"]
    waits = shares["idle_generation"] / sum(shares[key] for key in OF_SERVERS)
    if waits > BOTH_WAIT and idle["training"] > BOTH_WAIT:
        # Neither is the limit: the staleness bound is, or the longest answer.
        return max(limit_s, by_training_s)
    return limit_s


def step_of(summary: Mapping[str, Any]) -> float:
    """The mean step of what was simulated: of all of it, if that is so short."""
    mean = summary["step_time_s"]["mean"]
    if summary["steps"] <= FEW_STEPS:
        return float(summary["simulated_hours"]) * S_PER_HOUR / int(summary["steps"])
    return float(mean)


def worth_of(config: RunConfig, summary: Mapping[str, Any], step_s: float) -> Worth:
    """All steps of a configuration.

    Args:
        config: the whole run.
        summary: of a part of it: money and energy go at its rate.
        step_s: of the whole run.
    """
    hours = config.workload.steps * step_s / S_PER_HOUR
    rate = config.gpus / summary["gpus"] / summary["simulated_hours"]
    return Worth(
        hours=hours,
        gpu_hours=config.gpus * hours,
        cost_usd=summary["cost_usd"] * rate * hours,
        energy_kwh=summary["energy_kwh"] * rate * hours,
    )
