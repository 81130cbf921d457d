"""The policy losses of "AReaL" (arXiv 2505.24298): decoupled PPO and, to compare with, plain PPO.

Notation, per token: ``theta`` the policy being trained, ``behav`` the one that generated the token
(log-probabilities as the server reported them), ``prox`` the one at the start of the training step
(log-probabilities recomputed once a step), ``A`` the advantage, ``c`` the clip range.

Everything is a sum over tokens, so that micro-batches and ranks can be added and divided once by
the number of tokens of the whole minibatch: the mean is then exact however the batch was cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor

Objective = Literal["decoupled", "naive"]
OBJECTIVES: tuple[Objective, ...] = ("decoupled", "naive")

MAX_SUFFIX = "_max"
"""A statistic of this name is joined by the maximum, every other one by adding."""


def policy_loss(
    logprobs: Tensor,
    proximal_logprobs: Tensor | None,
    behaviour_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    objective: Objective,
    clip: float,
    behaviour_weight_cap: float | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum over tokens of the loss to minimise, and statistics of it.

    ``decoupled`` is the negative of the paper's eq. 5::

        w * min(r * A, clip(r, 1 - c, 1 + c) * A),    r = theta / prox,    w = prox / behav

    where ``w`` carries no gradient: the trust region lies around the newest policy, and ``w``
    corrects for who generated the token. ``naive`` is the negative of plain PPO (arXiv 1707.06347,
    eq. 7) with the policy that generated the token as the old one::

        min(r * A, clip(r, 1 - c, 1 + c) * A),        r = theta / behav

    A token whose ``w`` exceeds the cap is left out of the decoupled loss (weight 0), as AReaL's
    code does. Such a token had almost no chance under the weights that generated it, so its
    weight is mostly noise; capping would keep it in with a weight known to be wrong. It still
    counts in the number of tokens that the sum is divided by. The naive loss has no such weight
    and ignores the cap.

    Args:
        logprobs: float (...), of each token under the weights being trained; has the gradient.
        proximal_logprobs: same shape, under the weights at the start of the step. The naive loss
            uses it for statistics only, and takes None.
        behaviour_logprobs: same shape, under the weights that generated the token.
        advantages: same shape.
        mask: bool, same shape; True where the token was generated. What the other arguments hold
            elsewhere does not matter, not even if it is infinite or no number.
        objective: which loss.
        clip: c, above 0.
        behaviour_weight_cap: at least 1; None: no cap.

    Returns:
        The sum, a scalar with gradient in ``logprobs``, and detached scalars (see `join_stats`):
        ``tokens``; ``clipped``, tokens whose gradient the clip removed; ``dropped``, tokens left
        out by the cap; ``behaviour_weight`` and ``behaviour_weight_max``, of w before the cap;
        ``proximal_kl`` and ``behaviour_kl``, the estimate r - 1 - ln r of KL(prox || theta)
        and of KL(behav || theta), never negative (http://joschu.net/blog/kl-approx.html).

    Raises:
        ValueError: shapes differ, an option is out of range, or ``decoupled`` without
            ``proximal_logprobs``.
    """
    _check(logprobs, proximal_logprobs, behaviour_logprobs, advantages, mask)
    if objective not in OBJECTIVES:
        raise ValueError(f"objective: {objective!r} is not one of {', '.join(OBJECTIVES)}")
    if not clip > 0:
        raise ValueError(f"clip: {clip!r} is not above 0")
    if behaviour_weight_cap is not None and not behaviour_weight_cap >= 1:
        raise ValueError(f"behaviour_weight_cap: {behaviour_weight_cap!r} is below 1")
    # Masked before anything is computed: exp(inf) * 0 would be NaN, also in the gradient.
    theta = torch.where(mask, logprobs.float(), 0.0)
    behav = torch.where(mask, behaviour_logprobs.detach().float(), 0.0)
    if proximal_logprobs is not None:
        prox = torch.where(mask, proximal_logprobs.detach().float(), 0.0)
    elif objective == "naive":
        prox = theta.detach()
    else:
        raise ValueError("proximal_logprobs: the decoupled objective needs them")
    advantage = torch.where(mask, advantages.detach().float(), 0.0)

    weight = torch.exp(prox - behav)
    ratio = torch.exp(theta - (prox if objective == "decoupled" else behav))
    free = ratio * advantage
    bounded = ratio.clamp(1.0 - clip, 1.0 + clip) * advantage
    gain = torch.minimum(free, bounded)
    dropped = torch.zeros_like(mask)
    if objective == "decoupled":
        if behaviour_weight_cap is not None:
            dropped = mask & (weight > behaviour_weight_cap)
        gain = torch.where(dropped, 0.0, weight) * gain

    with torch.no_grad():
        stats = {
            "tokens": mask.sum(),
            "clipped": (mask & (bounded < free)).sum(),
            "dropped": dropped.sum(),
            "behaviour_weight": weight[mask].sum(),
            "behaviour_weight_max": torch.where(mask, weight, 0.0).amax()
            if mask.numel()
            else weight.sum(),
            "proximal_kl": _kl(theta, prox).sum(),
            "behaviour_kl": _kl(theta, behav).sum(),
        }
    return -torch.where(mask, gain, 0.0).sum(), {name: s.float() for name, s in stats.items()}


def join_stats(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Statistics of a whole out of those of its micro-batches or ranks.

    Names that end in ``_max`` take the greatest, all others the sum. No parts give no names.
    """
    joined: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            if name not in joined:
                joined[name] = float(value)
            elif name.endswith(MAX_SUFFIX):
                joined[name] = max(joined[name], float(value))
            else:
                joined[name] += float(value)
    return joined


def stats_per_token(stats: Mapping[str, float]) -> dict[str, float]:
    """Joined statistics as means over tokens; ``tokens`` and maxima as they are.

    ``clipped`` becomes the clip fraction, ``behaviour_weight`` the mean weight, and so on.
    """
    tokens = max(1.0, float(stats["tokens"]))
    return {
        name: value if name == "tokens" or name.endswith(MAX_SUFFIX) else value / tokens
        for name, value in stats.items()
    }


def _kl(theta: Tensor, other: Tensor) -> Tensor:
    """Estimates KL(other || theta) on tokens of ``other``: r - 1 - ln r with r = theta / other."""
    log_ratio = theta - other
    return torch.expm1(log_ratio) - log_ratio


def _check(logprobs: Tensor, prox: Tensor | None, behav: Tensor, adv: Tensor, mask: Tensor) -> None:
    named = {
        "proximal_logprobs": prox,
        "behaviour_logprobs": behav,
        "advantages": adv,
        "mask": mask,
    }
    for name, tensor in named.items():
        if tensor is not None and tensor.shape != logprobs.shape:
            raise ValueError(
                f"{name}: shape {tuple(tensor.shape)}, logprobs have {tuple(logprobs.shape)}"
            )
    if mask.dtype != torch.bool:
        raise ValueError(f"mask: {mask.dtype} is not torch.bool")
