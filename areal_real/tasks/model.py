"""The built-in task's model: a Hugging Face folder with a tiny Qwen2 and random weights.

Written with numpy alone. It has no tokenizer files: SGLang takes token ids, and is started with
``--skip-tokenizer-init``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyShape:
    """Sizes of a Qwen2 model. All can be halved, for two ranks or two stages.

    Attributes:
        layers, hidden, ffn: layers, width, width inside the MLP.
        heads, kv_heads: of attention; ``hidden`` is heads times an even number.
        max_positions: longest sequence, tokens.
        rope_base: base of the rotary frequencies.
        norm_eps: of RMSNorm.
    """

    layers: int = 2
    hidden: int = 64
    ffn: int = 128
    heads: int = 4
    kv_heads: int = 2
    max_positions: int = 512
    rope_base: float = 10_000.0
    norm_eps: float = 1e-6


TINY = TinyShape()


def write_model(
    folder: Path, *, vocab_size: int, eos_id: int, seed: int, shape: TinyShape = TINY
) -> None:
    """Write ``config.json`` and ``model.safetensors``, float32, into a folder that is made.

    Matrices are normal with standard deviation 1 / sqrt(columns), those that write to the residual
    stream over sqrt(2 * layers) as well (GPT-2's rule); the embedding has deviation 1 and the
    output layer 0.02, so that all tokens begin about equally likely.

    Args:
        folder: where to.
        vocab_size: rows of the embedding.
        eos_id: the token that ends an answer.
        seed: of the weights.
        shape: of the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = hf_config(vocab_size=vocab_size, eos_id=eos_id, shape=shape)
    text = json.dumps(config, indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    tensors = _weights(vocab_size, seed, shape)
    # "pt" is what Hugging Face's loader asks for; the format of the numbers is the same.
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def hf_config(*, vocab_size: int, eos_id: int, shape: TinyShape = TINY) -> dict[str, Any]:
    """The model's ``config.json``."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": vocab_size,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": shape.max_positions,
        "max_window_layers": shape.layers,
        "hidden_act": "silu",
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_base,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "use_cache": True,
        "torch_dtype": "float32",
        "bos_token_id": None,
        "eos_token_id": eos_id,
        "pad_token_id": None,
    }


def _weights(vocab: int, seed: int, shape: TinyShape) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    hidden, ffn = shape.hidden, shape.ffn
    head = hidden // shape.heads
    into_residual = 1 / np.sqrt(2 * shape.layers)

    def normal(rows: int, columns: int, std: float) -> NDArray[np.float32]:
        return rng.normal(0.0, std, (rows, columns)).astype(np.float32)

    ones = np.ones(hidden, np.float32)
    tensors = {"model.embed_tokens.weight": normal(vocab, hidden, 1.0)}
    for layer in range(shape.layers):
        at = f"model.layers.{layer}."
        for name, heads in (("q", shape.heads), ("k", shape.kv_heads), ("v", shape.kv_heads)):
            tensors[f"{at}self_attn.{name}_proj.weight"] = normal(
                heads * head, hidden, hidden**-0.5
            )
            tensors[f"{at}self_attn.{name}_proj.bias"] = np.zeros(heads * head, np.float32)
        tensors[f"{at}self_attn.o_proj.weight"] = normal(
            hidden, shape.heads * head, hidden**-0.5 * into_residual
        )
        tensors[f"{at}mlp.gate_proj.weight"] = normal(ffn, hidden, hidden**-0.5)
        tensors[f"{at}mlp.up_proj.weight"] = normal(ffn, hidden, hidden**-0.5)
        tensors[f"{at}mlp.down_proj.weight"] = normal(hidden, ffn, ffn**-0.5 * into_residual)
        tensors[f"{at}input_layernorm.weight"] = ones
        tensors[f"{at}post_attention_layernorm.weight"] = ones.copy()
    tensors["model.norm.weight"] = ones.copy()
    tensors["lm_head.weight"] = normal(vocab, hidden, 0.02)
    return tensors
