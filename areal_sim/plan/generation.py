"""What one server needs, in closed form: while it is always full, and until it is empty."""

from __future__ import annotations

import dataclasses

import numpy as np

from areal_sim.costs.protocol import FS_PER_S, ServerCost

SHARPNESS = 8.0
"""How sharply a step takes the longer of generation and training: they wait for each other most
where they are equal, 2^(1/8) = 1.09. Fitted by eye to short simulations of 7B on 512 GPUs."""

PREFILL_CHUNK_TOKENS = 8192
"""Default of ``sim.server.prefill_chunk_tokens``."""


@dataclasses.dataclass(frozen=True, slots=True)
class Lengths:
    """One batch: tokens of prompts and answers, and the contexts that decoding meets.

    Attributes:
        prompts, answers: shape (trajectories,).
        context: mean tokens in the cache of a rollout, at a random moment of its decoding.
        context_squared: mean of their squares.
    """

    prompts: np.ndarray
    answers: np.ndarray
    context: float
    context_squared: float

    @classmethod
    def of(cls, prompts: np.ndarray, answers: np.ndarray) -> Lengths:
        """From tokens, shape (trajectories,) both."""
        p, a = prompts.astype(float), answers.astype(float)
        total = a.sum()
        # Over its decoding a context grows from p to p + a, so its mean is p + a / 2.
        context = (a * (p + a / 2)).sum() / total
        squared = (a * (p * p + p * a + a * a / 3)).sum() / total
        return cls(prompts, answers, float(context), float(squared))


@dataclasses.dataclass(frozen=True, slots=True)
class Generation:
    """The times of one server on one workload.

    Attributes:
        cost: of the server.
        lengths: what it generates.
    """

    cost: ServerCost
    lengths: Lengths

    def stream_s(self, running: float, rollouts: float) -> float:
        """Seconds a server that always runs so many takes for so many rollouts."""
        steps = rollouts * float(self.lengths.answers.mean()) / running
        return steps * self._decode_s(running) + self._prefill_s(rollouts, steps)

    def again_s(self, running: float) -> float:
        """Prefill of all contexts that an update interrupted."""
        cost, tokens = self.cost, running * self.lengths.context
        fs = cost.prefill_per_token_fs * tokens
        fs += cost.prefill_per_token_pair_fs * running * self.lengths.context_squared / 2
        return (fs + tokens / PREFILL_CHUNK_TOKENS * cost.prefill_base_fs) / FS_PER_S

    def drain_s(self, running: float, rollouts: float) -> float:
        """Seconds until the last of so many rollouts is done, at most `running` at a time.

        Those that do not fit at once stream through a full server first. The slowest of all servers
        has the longest answer of the batch.
        """
        lead_s = 0.0
        if rollouts > running * 1.001:
            lead_s = self.stream_s(running, rollouts - running)
        answers = np.sort(self.lengths.answers).astype(float)
        # The whole batch stands for one server's rollouts: so many are left as answers end.
        marks = np.concatenate(([0.0], answers))
        left = np.maximum(running * (1 - np.arange(len(answers)) / len(answers)), 1.0)
        context = float(self.lengths.prompts.mean()) + (marks[:-1] + marks[1:]) / 2
        fs = self.cost.decode_base_fs + left * (
            self.cost.decode_per_rollout_fs + self.cost.decode_per_kv_token_fs * context
        )
        decode_s = float((np.diff(marks) * fs).sum()) / FS_PER_S
        return lead_s + decode_s + self._prefill_s(running, running)

    def _decode_s(self, running: float) -> float:
        """One decode step of so many rollouts with the mean context."""
        cost = self.cost
        each = cost.decode_per_rollout_fs + cost.decode_per_kv_token_fs * self.lengths.context
        return (cost.decode_base_fs + running * each) / FS_PER_S

    def _prefill_s(self, rollouts: float, steps: float) -> float:
        """Prefill of so many prompts, between so many decode steps."""
        cost, p = self.cost, self.lengths.prompts.astype(float)
        fs = cost.prefill_per_rollout_fs + float(
            (cost.prefill_per_token_fs * p + cost.prefill_per_token_pair_fs * p * p / 2).mean()
        )
        return (rollouts * fs + min(rollouts, steps) * cost.prefill_base_fs) / FS_PER_S


def longer_of(generation_s: float, training_s: float) -> float:
    """The longer of the two, rounded off where they are alike."""
    longer, shorter = max(generation_s, training_s), min(generation_s, training_s)
    return float(longer * (1 + (shorter / longer) ** SHARPNESS) ** (1 / SHARPNESS))
