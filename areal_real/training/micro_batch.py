"""Micro-batches: sequences end to end without padding, and what the loss needs of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from areal_real.training.batch import Batch

LIKE_LENGTHS = 0.75
"""Sequences at least this fraction of the longest in their group attend together, see `Group`."""


@dataclass(frozen=True, slots=True)
class Group:
    """Sequences of like lengths, padded at their ends to the longest, so that one call does all.

    Causal attention never looks right, so what pads a sequence changes nothing in it.

    Attributes:
        places: int64 (sequences, longest), where each token lies in the micro-batch.
    """

    places: Tensor


@dataclass(frozen=True, slots=True)
class Packing:
    """How N sequences lie in a micro-batch, as attention is told of it.

    Megatron hands it through to `core_attention` as ``packed_seq_params``, of which it has the
    fields that are looked at. The format is "sbhd" with a batch of one: under "thd" Megatron would
    take the sequences one by one for rotary embedding; here each token has its own frequencies.

    Attributes:
        ends: int32 (N + 1,), 0 and where each sequence ends.
        longest: tokens of the longest sequence.
        groups: see `Group`.
        back: int64 (T,), where each token lies in the groups' places, end to end.
    """

    ends: Tensor
    longest: int
    groups: Sequence[Group]
    back: Tensor
    qkv_format: str = "sbhd"
    cp_group: None = None


@dataclass(slots=True)
class MicroBatch:
    """T tokens of some sequences, of which R were generated.

    Attributes:
        tokens: int64 (1, T).
        positions: int64 (T,), place of each token in its own sequence.
        packing: where sequences begin and end.
        sources: int64 (R,), the tokens whose hidden state predicts a generated one.
        targets: int64 (R,), the generated tokens.
        behaviour, advantages: float32 (R,); `proximal` likewise, once it is computed.
        sequences: int64 positions of the sequences in the batch.
    """

    tokens: Tensor
    positions: Tensor
    packing: Packing
    sources: Tensor
    targets: Tensor
    behaviour: Tensor
    advantages: Tensor
    sequences: Sequence[int]
    proximal: Tensor | None = None


def micro_batch_of(
    batch: Batch,
    advantages: NDArray[np.float32],
    sequences: Sequence[int],
    device: torch.device,
) -> MicroBatch:
    """Lay sequences of a batch end to end.

    Args:
        batch: checked by `check_batch`.
        advantages: (T,) of the whole batch, at the place of the token.
        sequences: positions of the sequences in the batch.
        device: where the tensors are to be.
    """
    lengths = batch.lengths[list(sequences)]
    starts = batch.starts[list(sequences)]
    prompts = batch.prompt_tokens[list(sequences)]
    ends = np.cumsum(lengths)
    own_starts = ends - lengths
    positions = np.arange(ends[-1]) - np.repeat(own_starts, lengths)
    taken = positions + np.repeat(starts, lengths)
    generated = np.flatnonzero(positions >= np.repeat(prompts, lengths))
    tokens = batch.tokens[taken]

    def put(array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    return MicroBatch(
        tokens=put(tokens[None]),
        positions=put(positions),
        packing=_packing(own_starts, lengths, device),
        sources=put(generated - 1),
        targets=put(tokens[generated]),
        behaviour=put(batch.behaviour_logprobs[taken][generated]),
        advantages=put(advantages[taken][generated]),
        sequences=sequences,
    )


def check_batch(batch: Batch, *, vocab: int, most_tokens: int) -> None:
    """Check what the model would trip over.

    Args:
        batch: to be trained on.
        vocab: tokens that the model has.
        most_tokens: of a micro-batch.

    Raises:
        ValueError: an empty batch, prompt or answer, a sequence that fits into no micro-batch, a
            token the model does not have, or a log-probability that is no number; it names the
            rollout.
    """
    if not len(batch):
        raise ValueError("the batch holds no sequences")
    if batch.lengths.sum() != len(batch.tokens):
        raise ValueError(f"lengths sum to {batch.lengths.sum()}, tokens are {len(batch.tokens)}")
    answers = batch.lengths - batch.prompt_tokens
    for wrong, what in ((batch.prompt_tokens < 1, "prompt"), (answers < 1, "answer")):
        if wrong.any():
            raise ValueError(f"rollout {batch.rollout_ids[wrong.argmax()]}: its {what} is empty")
    if (wrong := batch.lengths > most_tokens).any():
        at = wrong.argmax()
        raise ValueError(
            f"rollout {batch.rollout_ids[at]}: {batch.lengths[at]} tokens, a micro-batch has at"
            f" most {most_tokens}"
        )
    owner = np.repeat(batch.rollout_ids, batch.lengths)
    if (wrong := (batch.tokens < 0) | (batch.tokens >= vocab)).any():
        at = wrong.argmax()
        raise ValueError(
            f"rollout {owner[at]}: token {batch.tokens[at]}, the model has 0 to {vocab - 1}"
        )
    if (wrong := ~np.isfinite(batch.behaviour_logprobs)).any():
        at = wrong.argmax()
        raise ValueError(f"rollout {owner[at]}: log-probability {batch.behaviour_logprobs[at]}")


def _packing(
    starts: NDArray[np.int64], lengths: NDArray[np.int64], device: torch.device
) -> Packing:
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    order = np.argsort(-lengths, kind="stable")
    back = np.empty(int(lengths.sum()), np.int64)
    groups, first, offset = [], 0, 0
    while first < len(order):
        width = int(lengths[order[first]])
        stop = first + int(np.searchsorted(-lengths[order[first:]], -LIKE_LENGTHS * width, "right"))
        members = order[first:stop]
        column = np.arange(width)
        inside = column < lengths[members, None]
        # A place beyond a sequence's end repeats its last token.
        places = starts[members, None] + np.minimum(column, lengths[members, None] - 1)
        padded = offset + np.arange(places.size).reshape(places.shape)
        back[places[inside]] = padded[inside]
        groups.append(Group(torch.from_numpy(places).to(device)))
        offset += places.size
        first = stop
    return Packing(
        ends=torch.from_numpy(ends).to(device),
        longest=int(lengths.max()),
        groups=groups,
        back=torch.from_numpy(back).to(device),
    )
