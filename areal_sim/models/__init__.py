"""What a model costs, from the shapes in its Hugging Face ``config.json``.

Families: Qwen2 (and Qwen2.5), Qwen3, Llama; dense, full attention. Known by name:

=======================  ========  ==============================================================
name                     alias     configuration
=======================  ========  ==============================================================
``r1-distill-qwen-1.5b`` ``1.5b``  deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B (untied embeddings)
``r1-distill-qwen-7b``   ``7b``    deepseek-ai/DeepSeek-R1-Distill-Qwen-7B
``r1-distill-qwen-14b``  ``14b``   deepseek-ai/DeepSeek-R1-Distill-Qwen-14B
``r1-distill-qwen-32b``  ``32b``   deepseek-ai/DeepSeek-R1-Distill-Qwen-32B
``qwen2.5-0.5b``         ``0.5b``  Qwen/Qwen2.5-0.5B (tied embeddings)
``llama-3.2-1b``         ``1b``    meta-llama/Llama-3.2-1B (tied embeddings)
=======================  ========  ==============================================================

Figure 6a of the AReaL paper has a "1B" model whose shape the paper does not give; ``1b`` is a
well-known 1.24B shape that stands in for it.
"""

from __future__ import annotations

from pathlib import Path

from areal_sched.config.model_shape import ModelShape
from areal_sched.errors import ConfigError, nearest

__all__ = ["ALIASES", "ModelShape", "config_file", "load_model", "model_names"]

ALIASES = {
    "0.5b": "qwen2.5-0.5b",
    "1b": "llama-3.2-1b",
    "1.5b": "r1-distill-qwen-1.5b",
    "7b": "r1-distill-qwen-7b",
    "14b": "r1-distill-qwen-14b",
    "32b": "r1-distill-qwen-32b",
}


def model_names() -> tuple[str, ...]:
    """The models known by name, sorted."""
    return tuple(sorted(path.parent.name for path in Path(__file__).parent.glob("*/config.json")))


def config_file(name: str) -> Path:
    """The ``config.json`` of a model known by name or alias."""
    folded = name.casefold()
    return Path(__file__).parent / ALIASES.get(folded, folded) / "config.json"


def load_model(name_or_path: str | Path) -> ModelShape:
    """A model by name, by alias, or by the path of a ``config.json`` or its folder.

    Raises:
        ConfigError: neither a known name nor a path; the message names the nearest name.
    """
    text = str(name_or_path)
    known = ALIASES.get(text.casefold(), text.casefold())
    if known in model_names():
        return ModelShape.from_hf_config(Path(__file__).parent / known, name=known)
    if Path(name_or_path).exists():
        return ModelShape.from_hf_config(Path(name_or_path))
    raise ConfigError(
        f"model = {text!r}: neither a known model nor a path"
        f"{nearest(text.casefold(), {*model_names(), *ALIASES})}"
    )
