"""What the tests of a real run's configuration share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from areal_real.config import RealConfig, parse_config
from areal_real.machine import Gpu, Machine
from areal_sched.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
READY = ROOT / "configs" / "real"

SMALL = """\
[workload]
prompts_per_step = 16
group_size = 8
max_prompt_tokens = 32
max_response_tokens = 64
steps = 10

[limits]
eta = 2

[real.server]
kv_cache_tokens = 16_384
"""

MODEL = {
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
"""A ``config.json``: heads of 8, so queries 64 and keys 16 wide."""

H100 = Gpu(name="NVIDIA H100 80GB HBM3", memory_bytes=81559 * 2**20, driver="580.1")


def small(*overrides: str) -> RealConfig:
    return parse_config(SMALL, overrides)


def refused(text: str, *overrides: str, folder: Path | str = ".") -> str:
    """The message of the error that a configuration gives: always one line."""
    with pytest.raises(ConfigError) as caught:
        parse_config(text, overrides, name="a.toml", folder=folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def model_folder(folder: Path, **changes: object) -> Path:
    """A model's folder with ``config.json`` alone."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(MODEL | changes), encoding="utf-8")
    return folder


def machine(**changes: object) -> Machine:
    """A large machine without GPUs, where everything is installed."""
    from areal_real.check import WANTED, WANTED_ON_GPUS

    facts: dict[str, object] = {
        "python": (3, 11),
        "cores": 256,
        "memory_bytes": 10**12,
        "disk_folder": Path("runs"),
        "disk_bytes": 10**13,
        "shm_bytes": 10**10,
        "open_files": 10**6,
        "gpus": (),
        "packages": {name: v or "1.0" for name, v in (WANTED | WANTED_ON_GPUS).items()},
        "bubblewrap": "bubblewrap 0.8.0",
        "ports": 1000,
    }
    return Machine(**(facts | changes))  # type: ignore[arg-type]
