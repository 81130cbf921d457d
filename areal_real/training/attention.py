"""Attention inside sequences that lie end to end: `core_attention` of the layer spec."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from areal_real.training.micro_batch import Packing

Varlen = Callable[[Tensor, Tensor, Tensor, Packing], Tensor]
"""Queries (T, heads, dim), keys and values (T, kv_heads, dim) to (T, heads, dim)."""


class PackedAttention(torch.nn.Module):
    """Causal attention, each sequence by itself, in Megatron's place for it.

    On CUDA in 16 bits it is flash attention over variable lengths, of the flash-attn package where
    that is installed, otherwise torch's own. Everywhere else it is torch's
    `scaled_dot_product_attention` over groups of like lengths.
    """

    def __init__(self, **_: Any) -> None:
        super().__init__()

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        attn_mask_type: Any = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: Packing | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            query: (T, 1, heads, dim), of this rank.
            key: (T, 1, kv_heads, dim).
            value: (T, 1, kv_heads, dim).
            attention_mask: unused; attention is causal inside each sequence.
            attn_mask_type: unused.
            attention_bias: unused.
            packed_seq_params: where the sequences are.

        Returns:
            (T, 1, heads * dim).
        """
        assert packed_seq_params is not None
        query, key, value = query.squeeze(1), key.squeeze(1), value.squeeze(1)
        if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
            out = _flash()(query, key, value, packed_seq_params)
        else:
            out = grouped_attention(query, key, value, packed_seq_params)
        return out.reshape(out.shape[0], 1, -1)


def grouped_attention(query: Tensor, key: Tensor, value: Tensor, packing: Packing) -> Tensor:
    """A `Varlen` of torch alone: one call for each group of like lengths."""
    outputs = []
    for group in packing.groups:
        q, k, v = (x[group.places].transpose(1, 2) for x in (query, key, value))
        out = scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1]
        )
        outputs.append(out.transpose(1, 2).reshape(-1, *query.shape[1:]))
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs)).index_select(0, packing.back)


@cache
def _flash() -> Varlen:
    """Flash attention over variable lengths; both of these take grouped queries."""
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError:
        from torch.nn.attention.varlen import varlen_attn

        def of_torch(query: Tensor, key: Tensor, value: Tensor, packing: Packing) -> Tensor:
            ends, longest = packing.ends, packing.longest
            out: Tensor = varlen_attn(
                query,
                key,
                value,
                ends,
                ends,
                longest,
                longest,
                window_size=(-1, 0),  # causal
                enable_gqa=query.shape[1] != key.shape[1],
            )
            return out

        return of_torch

    def of_package(query: Tensor, key: Tensor, value: Tensor, packing: Packing) -> Tensor:
        ends, longest = packing.ends, packing.longest
        out: Tensor = flash_attn_varlen_func(
            query, key, value, ends, ends, longest, longest, causal=True
        )
        return out

    return of_package
