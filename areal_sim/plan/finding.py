"""A candidate that was simulated, and what all of its run comes to."""

from __future__ import annotations

import dataclasses
from typing import Any

from areal_sim.config import RunConfig
from areal_sim.plan.question import Question
from areal_sim.plan.space import Candidate
from areal_sim.worth import Worth


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A candidate that was simulated.

    Attributes:
        candidate: which.
        config: its whole configuration, with all steps of the question.
        slice: what part of it was simulated.
        summary: of the simulation.
        step_s: a training step of the whole run, see `areal_sim.worth.steady_step_s`.
        saved_s: what checkpoints take of it, on average.
        worth: hours, money and energy of all steps.
    """

    candidate: Candidate
    config: RunConfig
    slice: int
    summary: dict[str, Any]
    step_s: float
    saved_s: float
    worth: Worth

    @property
    def lag(self) -> float:
        """Mean lag, versions."""
        return float(self.summary["lag"]["mean"])

    @property
    def max_lag(self) -> int:
        """Greatest lag, versions."""
        return int(self.summary["lag"]["max"])

    def value(self, question: Question) -> float:
        """What the question makes small."""
        return {
            "hours": self.worth.hours,
            "cost": self.worth.cost_usd,
            "energy": self.worth.energy_kwh,
            "gpu-hours": self.worth.gpu_hours,
            "gpus": float(self.candidate.gpus),
        }[question.objective]

    def within(self, question: Question, slack: float = 0.0) -> bool:
        """Whether it keeps the question's limits, or misses them by a share of `slack`."""
        limits = (
            (question.deadline_h, self.worth.hours),
            (question.budget_usd, self.worth.cost_usd),
            (question.step_s, self.step_s),
        )
        return all(most is None or value <= most * (1 + slack) for most, value in limits)
