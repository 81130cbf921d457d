"""Which Hugging Face tensors a Megatron parameter is made of, and how ranks share them.

Megatron joins q, k and v, group by group of heads that share a key, and the two halves of the
MLP's first layer, rank by rank. `Slot.read` takes this rank's part out of Hugging Face tensors,
`Slot.whole` makes them of the parts of all tensor-parallel ranks. Both hold for weights and for
whatever has their shape, such as the optimizer's moments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from areal_real.training.architecture import Architecture
from areal_real.training.tensor_files import TensorSource

if TYPE_CHECKING:  # Megatron takes seconds to import
    from areal_real.training.ranks import Ranks

Shapes = dict[str, tuple[int, ...]]
Read = Callable[[TensorSource], Tensor]
Whole = Callable[[Sequence[Tensor]], Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Slot:
    """One parameter of this rank.

    Attributes:
        parameter: Megatron's name of it.
        shapes: Hugging Face's tensors it is part of.
        split: whether tensor-parallel ranks have different parts.
        copied: True for a second copy of a tensor, which is not written to files.
        read: this rank's part, from a source of Hugging Face tensors.
        whole: Hugging Face tensors, from the parts of all tensor-parallel ranks; one part where
            it is not split.
    """

    parameter: str
    shapes: Shapes
    split: bool
    copied: bool
    read: Read
    whole: Whole


def slots_of(architecture: Architecture, ranks: Ranks, parameters: Sequence[str]) -> Iterator[Slot]:
    """Slots of a pipeline stage, in the order of its parameters.

    Args:
        architecture: of the whole model.
        ranks: the place of this process.
        parameters: Megatron's names; layers are numbered from 0 in each stage.
    """
    maker = _Maker(architecture, ranks.tensor, ranks.tensor_parallel)
    first_layer = architecture.layers // ranks.pipeline_parallel * ranks.pipeline
    for name in parameters:
        yield maker.slot(name, first_layer)


def all_shapes(architecture: Architecture) -> Shapes:
    """Every tensor of the model's Hugging Face folder."""
    a = architecture
    queries, keys = a.heads * a.head_dim, a.kv_heads * a.head_dim
    shapes: Shapes = {"model.embed_tokens.weight": (a.vocab, a.hidden)}
    for layer in range(a.layers):
        at = f"model.layers.{layer}"
        shapes[f"{at}.input_layernorm.weight"] = (a.hidden,)
        for part, rows in (("q", queries), ("k", keys), ("v", keys)):
            shapes[f"{at}.self_attn.{part}_proj.weight"] = (rows, a.hidden)
            shapes[f"{at}.self_attn.{part}_proj.bias"] = (rows,)
        shapes[f"{at}.self_attn.o_proj.weight"] = (a.hidden, queries)
        shapes[f"{at}.post_attention_layernorm.weight"] = (a.hidden,)
        shapes[f"{at}.mlp.gate_proj.weight"] = (a.ffn, a.hidden)
        shapes[f"{at}.mlp.up_proj.weight"] = (a.ffn, a.hidden)
        shapes[f"{at}.mlp.down_proj.weight"] = (a.hidden, a.ffn)
    shapes["model.norm.weight"] = (a.hidden,)
    if not a.tied:
        shapes["lm_head.weight"] = (a.vocab, a.hidden)
    return shapes


class _Maker:
    def __init__(self, architecture: Architecture, rank: int, ranks: int) -> None:
        self._a = architecture
        self._shapes = all_shapes(architecture)
        self._rank = rank
        self._ranks = ranks

    def slot(self, parameter: str, first_layer: int) -> Slot:
        """The slot of one parameter."""
        if not parameter.startswith("decoder.layers."):
            if parameter == "decoder.final_layernorm.weight":
                return self._same(parameter, "model.norm.weight")
            if parameter == "embedding.word_embeddings.weight":
                return self._vocabulary(parameter, "model.embed_tokens.weight")
            if parameter == "output_layer.weight":
                tied = self._a.tied
                name = "model.embed_tokens.weight" if tied else "lm_head.weight"
                return self._vocabulary(parameter, name, copied=tied)
            raise KeyError(parameter)
        _, _, number, rest = parameter.split(".", 3)
        at = f"model.layers.{int(number) + first_layer}"
        match rest:
            case "input_layernorm.weight":
                return self._same(parameter, f"{at}.input_layernorm.weight")
            case "pre_mlp_layernorm.weight":
                return self._same(parameter, f"{at}.post_attention_layernorm.weight")
            case "self_attention.linear_qkv.weight" | "self_attention.linear_qkv.bias":
                kind = rest.rpartition(".")[2]
                names = [f"{at}.self_attn.{part}_proj.{kind}" for part in "qkv"]
                return self._attention(parameter, names)
            case "self_attention.linear_proj.weight":
                return self._columns(parameter, f"{at}.self_attn.o_proj.weight")
            case "mlp.linear_fc1.weight":
                names = [f"{at}.mlp.{part}_proj.weight" for part in ("gate", "up")]
                return self._halves(parameter, names)
            case "mlp.linear_fc2.weight":
                return self._columns(parameter, f"{at}.mlp.down_proj.weight")
        raise KeyError(parameter)

    def _own(self, size: int) -> tuple[int, int]:
        part = size // self._ranks
        return part * self._rank, part * (self._rank + 1)

    def _of(self, names: Sequence[str]) -> Shapes:
        return {name: self._shapes[name] for name in names}

    def _same(self, parameter: str, name: str) -> Slot:
        rows = self._shapes[name][0]
        return Slot(
            parameter,
            self._of([name]),
            split=False,
            copied=False,
            read=lambda source: source.rows(name, 0, rows),
            whole=lambda parts: {name: parts[0]},
        )

    def _columns(self, parameter: str, name: str) -> Slot:
        start, stop = self._own(self._shapes[name][1])
        return Slot(
            parameter,
            self._of([name]),
            split=True,
            copied=False,
            read=lambda source: source.columns(name, start, stop),
            whole=lambda parts: {name: torch.cat(list(parts), 1)},
        )

    def _vocabulary(self, parameter: str, name: str, *, copied: bool = False) -> Slot:
        vocab = self._a.vocab
        start, stop = self._own(self._a.padded_vocab(self._ranks))

        def read(source: TensorSource) -> Tensor:
            rows = source.rows(name, min(start, vocab), min(stop, vocab))
            return torch.nn.functional.pad(rows, (0, 0, 0, stop - start - len(rows)))

        return Slot(
            parameter,
            self._of([name]),
            split=True,
            copied=copied,
            read=read,
            whole=lambda parts: {name: torch.cat(list(parts))[:vocab]},
        )

    def _halves(self, parameter: str, names: Sequence[str]) -> Slot:
        start, stop = self._own(self._a.ffn)

        def whole(parts: Sequence[Tensor]) -> Mapping[str, Tensor]:
            halves = zip(*(part.chunk(2) for part in parts), strict=True)
            return {name: torch.cat(half) for name, half in zip(names, halves, strict=True)}

        return Slot(
            parameter,
            self._of(names),
            split=True,
            copied=False,
            read=lambda source: torch.cat([source.rows(name, start, stop) for name in names]),
            whole=whole,
        )

    def _attention(self, parameter: str, names: Sequence[str]) -> Slot:
        a = self._a
        groups = a.kv_heads // self._ranks
        rows = (a.heads // a.kv_heads * a.head_dim, a.head_dim, a.head_dim)

        def read(source: TensorSource) -> Tensor:
            parts = []
            for name, per_group in zip(names, rows, strict=True):
                start, stop = self._own(a.kv_heads * per_group)
                part = source.rows(name, start, stop)
                parts.append(part.unflatten(0, (groups, per_group)))
            return torch.cat(parts, 1).flatten(0, 1)

        def whole(parts: Sequence[Tensor]) -> Mapping[str, Tensor]:
            joined = torch.cat(list(parts)).unflatten(0, (a.kv_heads, sum(rows)))
            split = joined.split(rows, 1)
            return {name: part.flatten(0, 1) for name, part in zip(names, split, strict=True)}

        return Slot(parameter, self._of(names), split=True, copied=False, read=read, whole=whole)
