"""Sizes of a model, from its Hugging Face ``config.json``.

Families: Qwen2 (and Qwen2.5), Qwen3, Llama; dense, full attention.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from areal_sched.errors import ConfigError, nearest

BYTES_OF_DTYPE = {"float16": 2, "bfloat16": 2, "float32": 4}

# Which projections carry a bias, and whether heads are normalised, is written in each family's
# modelling code, not in config.json: (bias on q, k, v; bias on o; norm on q and k). "config" means
# the key attention_bias decides.
_FAMILIES: dict[str, tuple[bool | str, bool | str, bool]] = {
    "qwen2": (True, False, False),
    "qwen3": ("config", "config", True),
    "llama": ("config", "config", False),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Sizes of a dense decoder-only transformer with grouped-query attention and gated MLP.

    Attributes:
        name: for messages and journals.
        hidden_size: width of the residual stream.
        intermediate_size: width of the gated MLP.
        num_layers: decoder layers.
        num_heads: query heads.
        num_kv_heads: key/value heads.
        head_dim: width of one head.
        vocab_size: rows of the embedding and of the LM head.
        tied_embeddings: the LM head is the embedding matrix.
        qkv_bias: biases on the q, k and v projections.
        output_bias: bias on the attention output projection.
        mlp_bias: biases on the MLP projections.
        qk_norm: RMS norms of width ``head_dim`` on q and k in every layer.
        max_position_embeddings: longest context the model was made for, in tokens.
        bytes_per_parameter: of the weights and of the KV cache in the inference engine.
    """

    name: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    tied_embeddings: bool
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    max_position_embeddings: int = 131_072
    bytes_per_parameter: int = 2

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"{self.name}: num_attention_heads = {self.num_heads} is not a multiple of"
                f" num_key_value_heads = {self.num_kv_heads}"
            )

    @classmethod
    def from_hf_config(
        cls, source: str | Path | Mapping[str, Any], *, name: str | None = None
    ) -> ModelShape:
        """Read a Hugging Face ``config.json``.

        Args:
            source: the file, the folder it lies in, or its parsed content.
            name: how to call the model; the file's ``_name_or_path`` or its folder otherwise.

        Raises:
            ConfigError: the file cannot be read, or a key is missing, wrong or not supported; the
                message names the file, the key, and its line where it has one.
        """
        return _Reader.open(source).shape(name)

    @property
    def query_width(self) -> int:
        """Width of all query heads together."""
        return self.num_heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of all key (or all value) heads together."""
        return self.num_kv_heads * self.head_dim

    @property
    def layer_matmul_parameters(self) -> int:
        """Weights of one layer that take part in matrix products: q, k, v, o, gate, up, down."""
        attention = self.hidden_size * (2 * self.query_width + 2 * self.kv_width)
        return attention + 3 * self.hidden_size * self.intermediate_size

    @property
    def layer_parameters(self) -> int:
        """All parameters of one layer, biases and norms included."""
        extra = 2 * self.hidden_size
        if self.qkv_bias:
            extra += self.query_width + 2 * self.kv_width
        if self.output_bias:
            extra += self.hidden_size
        if self.mlp_bias:
            extra += 2 * self.intermediate_size + self.hidden_size
        if self.qk_norm:
            extra += 2 * self.head_dim
        return self.layer_matmul_parameters + extra

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the input embedding; the LM head has as many."""
        return self.vocab_size * self.hidden_size

    @property
    def parameters(self) -> int:
        """Exact number of parameters; a tied LM head counts once."""
        embeddings = self.embedding_parameters * (1 if self.tied_embeddings else 2)
        return embeddings + self.num_layers * self.layer_parameters + self.hidden_size

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights as the engine holds them."""
        return self.parameters * self.bytes_per_parameter

    @property
    def streamed_weight_bytes(self) -> int:
        """Bytes a decode step reads: all weights, but of an untied input embedding only rows."""
        unread = 0 if self.tied_embeddings else self.embedding_parameters
        return (self.parameters - unread) * self.bytes_per_parameter

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values of one token over all layers."""
        return 2 * self.num_layers * self.kv_width * self.bytes_per_parameter

    def kv_bytes_per_token_per_gpu(self, tensor_parallel: int) -> int:
        """Bytes of one token's KV on each GPU.

        With more GPUs than KV heads the engine replicates heads, so this stops shrinking.
        """
        self.check_tensor_parallel(tensor_parallel)
        heads = -(-self.num_kv_heads // tensor_parallel)
        return 2 * self.num_layers * heads * self.head_dim * self.bytes_per_parameter

    def check_tensor_parallel(self, tensor_parallel: int) -> None:
        """Raise ConfigError if the heads cannot be divided over that many GPUs."""
        many, few = max(tensor_parallel, self.num_kv_heads), min(tensor_parallel, self.num_kv_heads)
        if self.num_heads % tensor_parallel or many % few:
            raise ConfigError(
                f"tensor_parallel = {tensor_parallel}: {self.name} has {self.num_heads} attention"
                f" heads and {self.num_kv_heads} KV heads, which do not divide over that many GPUs"
            )

    @property
    def layers_flops_per_token(self) -> int:
        """Forward operations of all layers' matrix products for one token (2 per weight)."""
        return 2 * self.num_layers * self.layer_matmul_parameters

    @property
    def head_flops_per_token(self) -> int:
        """Forward operations of the LM head for one token."""
        return 2 * self.embedding_parameters

    @property
    def attention_flops_per_pair(self) -> int:
        """Forward operations of scores and weighted values for one (query, key) pair of tokens."""
        return 4 * self.num_layers * self.query_width

    @property
    def attention_flops_per_token_squared(self) -> int:
        """Coefficient of tokens^2: a causal sequence has about tokens^2 / 2 pairs."""
        return self.attention_flops_per_pair // 2

    def forward_flops(self, tokens: int, *, lm_head: bool = True) -> int:
        """Operations of one forward pass over one causal sequence.

        Linear part times tokens plus attention part times tokens^2. Norms, rotary embedding and
        softmax are left out, as is usual.
        """
        linear = self.layers_flops_per_token + (self.head_flops_per_token if lm_head else 0)
        return linear * tokens + self.attention_flops_per_token_squared * tokens * tokens


@dataclasses.dataclass(frozen=True, slots=True)
class _Reader:
    """A parsed configuration that knows where its keys stand."""

    values: Mapping[str, Any]
    where: str
    text: str = ""
    folder: str = ""

    @classmethod
    def open(cls, source: str | Path | Mapping[str, Any]) -> _Reader:
        if isinstance(source, Mapping):
            return cls(source, "config")
        path = Path(source)
        path = path / "config.json" if path.is_dir() else path
        where = f"{path.parent.name}/{path.name}"
        try:
            text = path.read_text(encoding="utf-8")
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(
                f"{where}:{error.lineno}:{error.colno}: not JSON: {error.msg}"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{where}: cannot be read: {error}") from None
        if not isinstance(values, dict):
            raise ConfigError(f"{where}:1: expected an object, got {type(values).__name__}")
        return cls(values, where, text, path.parent.name)

    def at(self, key: str) -> str:
        """File and, if the key is written in it, line and column."""
        found = re.search(rf'"{re.escape(key)}"\s*:', self.text)
        if found is None:
            return self.where
        line = self.text.count("\n", 0, found.start()) + 1
        column = found.start() - self.text.rfind("\n", 0, found.start())
        return f"{self.where}:{line}:{column}"

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.values.get(key)
        if value is None:
            if default is not None:
                return default
            raise ConfigError(f"{self.where}: missing key {key!r}")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{self.at(key)}: {key} = {value!r}: expected a positive integer")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise ConfigError(f"{self.at(key)}: {key} = {value!r}: expected true or false")
        return value

    def shape(self, name: str | None) -> ModelShape:
        if "model_type" not in self.values:
            raise ConfigError(f"{self.where}: missing key 'model_type'")
        family = self.values["model_type"]
        if family not in _FAMILIES:
            raise ConfigError(
                f"{self.at('model_type')}: model_type = {family!r}: not a supported family"
                f"{nearest(str(family), _FAMILIES)}"
            )
        if self.flag("use_sliding_window"):
            raise ConfigError(
                f"{self.at('use_sliding_window')}: use_sliding_window = True: only full attention"
                " is modelled"
            )
        qkv_bias, output_bias, qk_norm = _FAMILIES[family]
        configured = self.flag("attention_bias")
        heads = self.integer("num_attention_heads")
        hidden = self.integer("hidden_size")
        if "head_dim" not in self.values and hidden % heads:
            raise ConfigError(
                f"{self.at('hidden_size')}: hidden_size = {hidden} is not a multiple of"
                f" num_attention_heads = {heads}, and head_dim is missing"
            )
        dtype_key = "torch_dtype" if "torch_dtype" in self.values else "dtype"
        dtype = self.values.get(dtype_key, "bfloat16")
        if dtype not in BYTES_OF_DTYPE:
            raise ConfigError(
                f"{self.at(dtype_key)}: {dtype_key} = {dtype!r}: not supported"
                f"{nearest(str(dtype), BYTES_OF_DTYPE)}"
            )
        written = self.values.get("_name_or_path") or self.folder or self.where
        return ModelShape(
            name=name or str(written),
            hidden_size=hidden,
            intermediate_size=self.integer("intermediate_size"),
            num_layers=self.integer("num_hidden_layers"),
            num_heads=heads,
            num_kv_heads=self.integer("num_key_value_heads", heads),
            head_dim=self.integer("head_dim", math.ceil(hidden / heads)),
            vocab_size=self.integer("vocab_size"),
            tied_embeddings=self.flag("tie_word_embeddings"),
            qkv_bias=configured if qkv_bias == "config" else bool(qkv_bias),
            output_bias=configured if output_bias == "config" else bool(output_bias),
            mlp_bias=self.flag("mlp_bias"),
            qk_norm=qk_norm,
            max_position_embeddings=self.integer("max_position_embeddings", 131_072),
            bytes_per_parameter=BYTES_OF_DTYPE[dtype],
        )
