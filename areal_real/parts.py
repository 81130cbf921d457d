"""What the executor needs of servers, trainer and reward workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from areal_real.tasks.problem import Problem
from areal_sched import commands as c
from areal_sched.records import Rollout


class Segment(Protocol):
    """What a rollout generated in one stay on a server."""

    @property
    def ids(self) -> Sequence[int]:
        """Tokens."""

    @property
    def logprobs(self) -> Any:
        """float32, one for each token."""

    @property
    def versions(self) -> Any:
        """Weights that generated each token, as the server says."""

    @property
    def finish(self) -> str:
        """``stop``, ``length`` or ``abort``."""


class InferenceServer(Protocol):
    """What the executor needs of a server; `areal_real.serving.ManagedServer` is one."""

    def submit(
        self,
        rollout_id: int,
        input_ids: Sequence[int],
        max_new_tokens: int,
        *,
        resumed: bool = False,
    ) -> None:
        """Generate; `resumed`: the input was in a KV cache before."""

    def interrupt(self, rollout_ids: Sequence[int]) -> None:
        """Stop rollouts and report what they have."""

    def abort(self, rollout_ids: Sequence[int]) -> None:
        """Stop rollouts for good."""

    def load(self, version: int, mode: c.UpdateMode) -> None:
        """Load published weights."""


class Learner(Protocol):
    """What the executor needs of the trainer; `areal_real.learner.TrainerDriver` is one."""

    def start(self, version: int, rollouts: Sequence[Rollout]) -> None:
        """Begin a training step on these rollouts."""


class Scorer(Protocol):
    """What the executor needs of the reward workers; `areal_real.rewards.pool.RewardPool`."""

    async def score(self, problem: Problem, answer: str) -> float:
        """Judge an answer; raises `BackendError` where that cannot be done."""
