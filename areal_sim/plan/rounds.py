"""How long and on what slice each round of a search simulates."""

from __future__ import annotations

import dataclasses
import math

from areal_sim.config import RunConfig


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """How a round simulates: on the largest slice with so many trajectories a step, so long.

    Attributes:
        trajectories: of a step, at least.
        steps: training steps, and
        steps_per_batch: so many more for each training batch in flight: until what was started
            together has been trained, waves of it go through the run.
    """

    trajectories: int
    steps: int
    steps_per_batch: int

    def steps_of(self, config: RunConfig) -> int:
        """Training steps to simulate of a configuration."""
        if config.scheduler.class_path in TURNS or config.bounds.eta == 0:
            steps = STEPS_OF_TURNS
        else:
            batches = config.bounds.max_rollouts_in_flight / config.train_batch_rollouts
            steps = self.steps + math.ceil(self.steps_per_batch * batches)
        return min(steps, config.workload.steps)


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """What is simulated of a candidate, and what checkpoints take of each of its steps."""

    config: RunConfig
    saved_s: float


FIRST = Round(trajectories=1024, steps=12, steps_per_batch=1)
SECOND = Round(trajectories=1024, steps=16, steps_per_batch=2)
LAST = Round(trajectories=2048, steps=16, steps_per_batch=2)

TURNS = ("synchronous", "one_step_off")
STEPS_OF_TURNS = 6
"""Of schedulers that wait for every batch, so that each step is like the last."""


def part_of(config: RunConfig, trajectories: int) -> int:
    """The largest slice that leaves so many trajectories a step, and divides everything."""
    whole = math.gcd(config.servers, config.data_parallel_ranks, config.workload.prompts_per_step)
    most = max(1, config.train_batch_rollouts // trajectories)
    return max(part for part in range(1, min(whole, most) + 1) if whole % part == 0)
