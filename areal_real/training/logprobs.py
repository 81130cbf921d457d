"""Log-probabilities and entropies of tokens, where each rank has a part of the vocabulary."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = 2**28
"""Logits that a rank holds at a time, 1 GiB in float32. More are made, used and made again."""


def token_logprobs(
    hidden: Tensor,
    output_layer: torch.nn.Module,
    weight: Tensor | None,
    targets: Tensor,
    *,
    vocab: int,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of tokens and the entropies of what they were drawn from.

    Args:
        hidden: (R, 1, width), final hidden states at the places that predict the tokens.
        output_layer: Megatron's `ColumnParallelLinear` without gathering.
        weight: its weight where it is the embedding's.
        targets: int64 (R,).
        vocab: of the model; rows beyond it are padding and have no probability.
        temperature: divides the logits.

    Returns:
        float32 (R,) and float32 (R,), in nats, alike on all tensor-parallel ranks.
    """
    group = output_layer.tp_group
    rows = (output_layer.weight if weight is None else weight).shape[0]
    start = rows * group.rank()
    padding = max(0, start + rows - vocab)

    def part(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = output_layer(hidden, weight=weight)[0].squeeze(1).float()
        if padding:
            # Far below any logit, but finite: 0 times it is 0 in the entropy.
            own = torch.arange(rows, device=logits.device) >= rows - padding
            logits = logits.masked_fill(own, -1e30)
        if temperature != 1.0:
            logits = logits / temperature
        return vocab_parallel_logprobs(logits, targets, start, group)

    step = max(1, LOGITS_AT_ONCE // rows)
    if len(targets) <= step:
        return part(hidden, targets)
    parts = [
        checkpoint(part, h, t, use_reentrant=False, preserve_rng_state=False)
        for h, t in zip(hidden.split(step), targets.split(step), strict=True)
    ]
    logprobs, entropies = zip(*parts, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def vocab_parallel_logprobs(
    logits: Tensor, targets: Tensor, start: int, group: dist.ProcessGroup
) -> tuple[Tensor, Tensor]:
    """Log-softmax at the targets, and the entropy, of logits split over ranks by vocabulary.

    Args:
        logits: float32 (R, V), this rank's part; not changed.
        targets: int64 (R,), in the whole vocabulary.
        start: the token of this rank's first column.
        group: ranks that hold the other columns.

    Returns:
        float32 (R,) and float32 (R,), both with gradients.
    """
    result: tuple[Tensor, Tensor] = _LogProbs.apply(logits, targets, start, group)
    return result


class _LogProbs(torch.autograd.Function):
    """With p the softmax and H the entropy: d log p_t / dz = 1_t - p;  dH / dz = -p (log p + H)."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, start: int, group: dist.ProcessGroup
    ) -> tuple[Tensor, Tensor]:
        split = group.size() > 1
        greatest = logits.amax(-1)
        if split:
            dist.all_reduce(greatest, dist.ReduceOp.MAX, group)
        shifted = logits - greatest[:, None]
        powers = shifted.exp()
        places = targets - start
        inside = (places >= 0) & (places < logits.shape[1])
        places = torch.where(inside, places, 0)[:, None]
        sums = torch.stack(
            (
                powers.sum(-1),
                torch.linalg.vecdot(powers, shifted),
                shifted.gather(1, places)[:, 0] * inside,
            )
        )
        if split:
            dist.all_reduce(sums, dist.ReduceOp.SUM, group)
        total, weighted, at_target = sums
        log_total = total.log()
        entropy = log_total - weighted / total
        probabilities = powers.div_(total[:, None])
        ctx.save_for_backward(probabilities, entropy, places, inside)
        ctx.set_materialize_grads(False)
        return at_target - log_total, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        of_logprob, of_entropy = grads
        probabilities, entropy, places, inside = ctx.saved_tensors
        grad: Tensor | None = None
        if of_logprob is not None:
            grad = probabilities * -of_logprob[:, None]
            grad.scatter_add_(1, places, (of_logprob * inside)[:, None])
        if of_entropy is not None:
            slope = torch.xlogy(probabilities, probabilities)
            slope = slope.addcmul_(probabilities, entropy[:, None]).mul_(-of_entropy[:, None])
            grad = slope if grad is None else grad + slope
        return grad, None, None, None
