"""Advantages of a whole batch: a baseline per group, spread over tokens, normalised once.

With gamma = lambda = 1, no critic and a reward at the end (the setting of arXiv 2505.24298), every
token's return is the reward of its answer, so one number per answer is all there is to compute.

It works on the arrays of the whole batch, before anything is cut into minibatches, micro-batches or
ranks: groups and the normalisation are exact whatever the parallel layout.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from areal_real.training.batch import Batch

Baseline = Literal["grpo", "rloo", "none"]
BASELINES: tuple[Baseline, ...] = ("grpo", "rloo", "none")

STD_EPSILON = 1e-6
"""A spread below this is none: all rewards, or all advantages, are alike. Unit: of the reward."""

Floats = NDArray[np.float64]


def sequence_advantages(
    rewards: NDArray[np.float32],
    group_ids: NDArray[np.int64],
    *,
    baseline: Baseline,
    divide_by_std: bool = False,
) -> Floats:
    """Advantage of each answer over the others of its group.

    - ``grpo``: reward minus the group's mean (arXiv 2402.03300, section 4.1.2, also divides by the
      group's standard deviation; ``divide_by_std`` does that, with the population's).
    - ``rloo``: reward minus the mean of the *other* answers of the group (REINFORCE
      leave-one-out, arXiv 2402.14740), which is the former times n / (n - 1).
    - ``none``: the reward itself.

    An answer alone in its group in this batch has nothing to be compared with: 0 under ``grpo``
    and ``rloo``.

    Args:
        rewards: (N,), of each answer.
        group_ids: (N,), answers to one prompt share one.
        baseline: which.
        divide_by_std: only with ``grpo``. A group of equal rewards gives 0.

    Returns:
        float64 (N,).

    Raises:
        ValueError: lengths differ, a reward is no finite number, unknown baseline, or
            ``divide_by_std`` with another baseline than ``grpo``.
    """
    if baseline not in BASELINES:
        raise ValueError(f"baseline: {baseline!r} is not one of {', '.join(BASELINES)}")
    if divide_by_std and baseline != "grpo":
        raise ValueError(f"divide_by_std: not with baseline {baseline!r}, only with 'grpo'")
    if rewards.shape != group_ids.shape or rewards.ndim != 1:
        raise ValueError(f"group_ids: shape {group_ids.shape}, rewards have {rewards.shape}")
    reward = rewards.astype(np.float64)
    if not np.isfinite(reward).all():
        first = int(np.flatnonzero(~np.isfinite(reward))[0])
        raise ValueError(f"rewards: number {first} is {reward[first]}")
    if baseline == "none" or not len(reward):
        return reward
    _, place, count = np.unique(group_ids, return_inverse=True, return_counts=True)
    size = count[place].astype(np.float64)
    centred = reward - (np.bincount(place, weights=reward) / count)[place]
    # A sum of equal rewards may round: what is meant to be 0 is made 0.
    centred[np.abs(centred) < STD_EPSILON] = 0.0
    if baseline == "rloo":
        return np.where(size > 1, centred * size / np.maximum(size - 1, 1), 0.0)
    if divide_by_std:
        std = np.sqrt(np.bincount(place, weights=centred**2) / count)[place]
        return np.where(std < STD_EPSILON, 0.0, centred / np.maximum(std, STD_EPSILON))
    return centred


def normalise(advantages: Floats, weights: NDArray[np.int64]) -> Floats:
    """Advantages with mean 0 and variance 1 over all tokens of the batch.

    Args:
        advantages: (N,), of each answer.
        weights: (N,), its generated tokens: each token counts once, so long answers count more.

    Returns:
        float64 (N,); zeros where all are alike.

    Raises:
        ValueError: lengths differ.
    """
    if advantages.shape != weights.shape:
        raise ValueError(f"weights: shape {weights.shape}, advantages have {advantages.shape}")
    total = float(weights.sum())
    if total == 0:
        return np.zeros_like(advantages)
    centred = advantages - float(advantages @ weights) / total
    std = float(np.sqrt(centred**2 @ weights / total))
    return np.zeros_like(advantages) if std < STD_EPSILON else centred / std


def token_advantages(
    batch: Batch, *, baseline: Baseline, normalise_advantages: bool, divide_by_std: bool = False
) -> NDArray[np.float32]:
    """Advantage of each token of a batch.

    Args:
        batch: N sequences with T tokens in all.
        baseline: see `sequence_advantages`.
        normalise_advantages: see `normalise`.
        divide_by_std: see `sequence_advantages`.

    Returns:
        float32 (T,), at the place of the token as in the batch; 0 in prompts.

    Raises:
        ValueError: see `sequence_advantages`.
    """
    generated = batch.lengths - batch.prompt_tokens
    per_answer = sequence_advantages(
        batch.rewards, batch.group_ids, baseline=baseline, divide_by_std=divide_by_std
    )
    if normalise_advantages:
        per_answer = normalise(per_answer, generated)
    return np.where(response_mask(batch), np.repeat(per_answer, batch.lengths), 0.0).astype(
        np.float32
    )


def response_mask(batch: Batch) -> NDArray[np.bool_]:
    """Which tokens were generated, not given: bool (T,)."""
    offset = np.arange(len(batch.tokens)) - np.repeat(batch.starts, batch.lengths)
    return np.asarray(offset >= np.repeat(batch.prompt_tokens, batch.lengths))
