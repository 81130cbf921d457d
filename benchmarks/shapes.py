"""Models of the measured cases that `areal_sim.models` does not know by name.

Values are those of each model's public ``config.json`` on Hugging Face, sizes only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from areal_sim.models import ModelShape

_QWEN3: dict[str, Any] = {
    "model_type": "qwen3",
    "head_dim": 128,
    "num_key_value_heads": 8,
    "vocab_size": 151_936,
    "max_position_embeddings": 40_960,
    "attention_bias": False,
    "torch_dtype": "bfloat16",
}

CONFIGS: dict[str, dict[str, Any]] = {
    # Qwen/Qwen3-0.6B
    "qwen3-0.6b": _QWEN3
    | {
        "hidden_size": 1_024,
        "intermediate_size": 3_072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "tie_word_embeddings": True,
    },
    # Qwen/Qwen3-4B-Instruct-2507, of the size of Qwen/Qwen3-4B
    "qwen3-4b": _QWEN3
    | {
        "hidden_size": 2_560,
        "intermediate_size": 9_728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "tie_word_embeddings": True,
        "max_position_embeddings": 262_144,
    },
    # Qwen/Qwen3-32B
    "qwen3-32b": _QWEN3
    | {
        "hidden_size": 5_120,
        "intermediate_size": 25_600,
        "num_hidden_layers": 64,
        "num_attention_heads": 64,
        "tie_word_embeddings": False,
    },
    # Qwen/Qwen2-7B-Instruct; Qwen/Qwen2.5-Math-7B and R1-Distill-Qwen-7B have the same shape
    "qwen2-7b": {
        "model_type": "qwen2",
        "hidden_size": 3_584,
        "intermediate_size": 18_944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152_064,
        "max_position_embeddings": 32_768,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    },
    # meta-llama/Llama-3.1-8B
    "llama-3.1-8b": {
        "model_type": "llama",
        "hidden_size": 4_096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
        "max_position_embeddings": 131_072,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    },
}


def shape(name: str) -> ModelShape:
    """One of `CONFIGS` as a shape."""
    return ModelShape.from_hf_config(CONFIGS[name], name=name)


def write_config(name: str, folder: Path) -> Path:
    """Write one of `CONFIGS` as a ``config.json`` into a folder, and return its path."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps(CONFIGS[name]), encoding="utf-8")
    return path
