"""The shape of a model, from the ``config.json`` of its Hugging Face folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from areal_sched.errors import ConfigError, nearest

SUPPORTED = ("qwen2",)
"""Values of ``model_type`` that the trainer knows the weights of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A Qwen2-family model: RMSNorm, rotary positions, grouped queries, SwiGLU, biases on q, k, v.

    Attributes:
        config: the whole of ``config.json``.
        layers, hidden, ffn: layers, width, width inside the MLP.
        heads, kv_heads, head_dim: of attention.
        vocab: rows of the embedding.
        tied: whether the output layer is the embedding.
        rope_base: base of the rotary frequencies.
        norm_eps: of RMSNorm.
        max_positions: longest sequence the model is made for, tokens.
        initializer_range: standard deviation of weights that are not loaded.
    """

    config: dict[str, Any]
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    rope_base: float
    norm_eps: float
    max_positions: int
    initializer_range: float

    @classmethod
    def read(cls, folder: Path) -> Architecture:
        """Read ``config.json``.

        Raises:
            ConfigError: the file is missing or no JSON, a key is missing, or the model is of a
                kind that the trainer does not have.
        """
        path = folder / "config.json"
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except OSError as exc:
            raise ConfigError(f"{path}: {exc.strerror or exc}") from None
        except ValueError as exc:
            raise ConfigError(f"{path}: no JSON: {exc}") from None
        if not isinstance(config, dict):
            raise ConfigError(f"{path}: holds no JSON object")
        return cls._of(config, path)

    @classmethod
    def _of(cls, config: dict[str, Any], path: Path) -> Architecture:
        kind = config.get("model_type")
        if kind not in SUPPORTED:
            raise ConfigError(f"{path}: model_type = {kind!r}{nearest(kind, SUPPORTED)}")

        def number(key: str) -> int:
            value = config.get(key)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{path}: {key} = {value!r}: must be a whole number above 0")
            return value

        # transformers 5 has one table for rotary embeddings, older files have two keys.
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if (rope_type := rope.get("rope_type", rope.get("type", "default"))) != "default":
            raise ConfigError(f"{path}: rope type {rope_type!r}: only 'default' is trained")
        for key, only in (("use_sliding_window", False), ("hidden_act", "silu")):
            if config.get(key, only) != only:
                raise ConfigError(f"{path}: {key} = {config[key]!r}: only {only!r} is trained")
        heads = number("num_attention_heads")
        hidden = number("hidden_size")
        head_dim = config.get("head_dim") or hidden // heads
        if head_dim * heads != hidden:
            raise ConfigError(
                f"{path}: hidden_size = {hidden}: must be num_attention_heads ({heads}) times"
                f" head_dim ({head_dim})"
            )
        kv_heads = number("num_key_value_heads") if "num_key_value_heads" in config else heads
        if heads % kv_heads:
            raise ConfigError(
                f"{path}: num_key_value_heads = {kv_heads}: must divide num_attention_heads"
                f" ({heads})"
            )
        return cls(
            config=config,
            layers=number("num_hidden_layers"),
            hidden=hidden,
            ffn=number("intermediate_size"),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            vocab=number("vocab_size"),
            tied=bool(config.get("tie_word_embeddings", False)),
            rope_base=float(rope.get("rope_theta", config.get("rope_theta", 10_000.0))),
            norm_eps=float(config.get("rms_norm_eps", 1e-6)),
            max_positions=number("max_position_embeddings"),
            initializer_range=float(config.get("initializer_range", 0.02)),
        )

    def check_layout(self, *, tensor_parallel: int, pipeline_parallel: int) -> None:
        """Check that the model can be split so.

        Raises:
            ConfigError: it cannot.
        """
        for name, value in (
            ("num_key_value_heads", self.kv_heads),
            ("intermediate_size", self.ffn),
        ):
            if value % tensor_parallel:
                raise ConfigError(
                    f"trainer tensor_parallel = {tensor_parallel}: must divide the model's {name}"
                    f" ({value})"
                )
        if self.layers % pipeline_parallel:
            raise ConfigError(
                f"trainer pipeline_parallel = {pipeline_parallel}: must divide the model's"
                f" num_hidden_layers ({self.layers})"
            )

    def padded_vocab(self, tensor_parallel: int) -> int:
        """Rows of the embedding, filled up so that each tensor-parallel rank has as many."""
        return -(-self.vocab // tensor_parallel) * tensor_parallel
