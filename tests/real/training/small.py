"""A small model and small batches: what the tests of the trainer share. Imports no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from areal_real.training.batch import Batch, Sample

ROOT = Path(__file__).resolve().parents[3]

MODELS: dict[str, dict[str, Any]] = {
    "plain": {"vocab_size": 20, "num_hidden_layers": 4, "tie_word_embeddings": False},
    # An odd vocabulary is filled up where two ranks share it.
    "tied": {"vocab_size": 19, "num_hidden_layers": 2, "tie_word_embeddings": True},
}

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}

ONE_STEP = {
    "micro_batch_tokens": 96,
    "learning_rate": 1e-2,
    "adam_eps": 1e-4,
    "grad_clip": 0.0,
    "threads": 1,
}
"""Adam divides by the root of the second moment plus eps: with a tiny eps, gradients that are 0 but
for rounding would decide weights."""

LONG = {
    **ONE_STEP,
    "minibatches": 2,
    "warmup_steps": 3,
    "weight_decay": 0.1,
    "grad_clip": 0.3,
    "temperature": 0.7,
    "entropy_coefficient": 0.05,
    "behaviour_weight_cap": 1.2,
    "clip": 0.1,
}

LEARNING_RATE = 5e-3
"""Of the supervised step."""


def write_config(folder: Path, **changes: Any) -> Path:
    """A model folder without weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        **SHAPE,
        **MODELS["plain"],
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def batch(*, sequences: int = 12, vocab: int = 19, seed: int = 0) -> Batch:
    """Trajectories of random tokens and very different lengths, in groups of four."""
    random = np.random.default_rng(seed)
    samples = []
    for number in range(sequences):
        prompt, answer = int(random.integers(1, 6)), int(random.integers(1, 40))
        samples.append(
            Sample(
                rollout_id=100 + number,
                group_id=number // 4,
                prompt_ids=random.integers(0, vocab, prompt).tolist(),
                response_ids=random.integers(0, vocab, answer).tolist(),
                behaviour_logprobs=random.normal(-3.0, 0.3, answer).astype(np.float32),
                versions=np.zeros(answer, np.int64),
                reward=float(random.integers(0, 3)),
            )
        )
    return Batch.of(samples)


def run_script(script: Path, *arguments: str, processes: int | None = None) -> None:
    """Run a script of this folder, by itself or under torchrun.

    Raises:
        AssertionError: it failed; with its output.
    """
    torchrun = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
    ]
    done = subprocess.run(
        [sys.executable, *(torchrun if processes else []), str(script), *arguments],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
            "PYTHONPATH": str(ROOT),
            "GLOO_SOCKET_IFNAME": "lo",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"{script.name}: status {done.returncode}\n{done.stdout[-6000:]}")
