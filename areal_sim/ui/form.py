"""From what the sidebar holds to a question."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from areal_sched.errors import ConfigError
from areal_sim.hardware import GPUS
from areal_sim.models import ALIASES, model_names
from areal_sim.plan import Question, offers
from areal_sim.plan.question import TASKS, Costs, Objective
from traces.presets import PRESETS

MODELS = (*ALIASES, *(name for name in model_names() if name not in ALIASES.values()))
"""Models to choose from; the page takes a path, too."""

GPU_NAMES = tuple(gpu.name for gpu in GPUS.values())

WORKLOADS = (*TASKS, *PRESETS)

OBJECTIVE_NAMES: dict[Objective, str] = {
    "hours": "fewest hours",
    "cost": "least cost",
    "energy": "least energy",
    "gpu-hours": "fewest GPU-hours",
    "gpus": "fewest GPUs",
}

COST_NAMES: dict[Costs, str] = {
    "paper": "calibrated on the paper's runs",
    "roofline": "roofline, uncalibrated",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What the sidebar holds. None is an empty field.

    Attributes:
        model: a known name, or the path of a ``config.json``.
        gpus: kinds to choose from.
        count: how many of a kind: all of them for the fewest hours, else up to so many.
        trace: file of measured lengths; counts in place of the task.

    The others are fields of `Question`.
    """

    model: str = "7b"
    gpus: tuple[str, ...] = ("H800",)
    count: int = 64
    task: str = "math"
    trace: str = ""
    prompts_per_step: int = 512
    group_size: int = 16
    max_prompt_tokens: int = 1024
    max_response_tokens: int = 27_648
    steps: int = 250
    objective: Objective = "hours"
    deadline_h: float | None = None
    budget_usd: float | None = None
    step_s: float | None = None
    eta: int | None = 8
    schedulers: tuple[str, ...] = ("areal", "one_step_off", "synchronous")
    costs: Costs = "paper"
    gpus_per_node: int = 8
    seed: int = 1

    def question(self) -> Question:
        """The question.

        Raises:
            ConfigError: a field makes no sense; the message names it, and its value.
        """
        if not self.gpus:
            raise ConfigError("gpus: choose at least one kind")
        trace = self.trace.strip()
        return Question(
            model=self.model.strip(),
            gpus=offers([f"{self.count}x{name}" for name in self.gpus]),
            task=None if trace else self.task,
            trace=Path(trace) if trace else None,
            steps=self.steps,
            prompts_per_step=self.prompts_per_step,
            group_size=self.group_size,
            max_prompt_tokens=self.max_prompt_tokens,
            max_response_tokens=self.max_response_tokens,
            objective=self.objective,
            deadline_h=self.deadline_h,
            budget_usd=self.budget_usd,
            step_s=self.step_s,
            eta=self.eta,
            schedulers=self.schedulers,
            costs=self.costs,
            gpus_per_node=self.gpus_per_node,
            seed=self.seed,
        )
