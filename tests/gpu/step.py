"""Run as a script under torchrun: training steps of a real model's shape on GPUs, timed.

Arguments: a folder with the model's ``config.json``, a file for the result, sequences a step,
tokens a sequence. The numbers are for `docs`; nothing is judged by its speed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

from areal_real.training import ranks
from areal_real.training.batch import Batch
from areal_real.training.settings import TrainerSettings
from areal_real.training.trainer import Trainer
from areal_sim.hardware import GPUS
from areal_sim.models import load_model

WARM_UP_STEPS, TIMED_STEPS = 2, 3
PROMPT_TOKENS = 128

FORWARDS = 4
"""Forward passes that a step's floating point operations make: the proximal one, one forward, and
a backward of two. What recomputation does twice does not count."""


def batch_of(sequences: int, tokens: int, vocab: int) -> Batch:
    """Random trajectories, half to all of the length."""
    random = np.random.default_rng(0)
    lengths = random.integers(tokens // 2, tokens + 1, sequences)
    total = int(lengths.sum())
    return Batch(
        tokens=random.integers(0, vocab, total),
        lengths=lengths,
        prompt_tokens=np.full(sequences, PROMPT_TOKENS),
        behaviour_logprobs=np.full(total, -np.log(vocab), np.float32),
        versions=np.zeros(total, np.int64),
        rewards=random.integers(0, 2, sequences).astype(np.float32),
        group_ids=np.arange(sequences) // 8,
        rollout_ids=np.arange(sequences),
    )


def main(model: Path, out: Path, sequences: int, tokens: int) -> None:
    """Train and measure."""
    settings = TrainerSettings(
        device="cuda",
        dtype="bfloat16",
        data_parallel=int(os.environ["WORLD_SIZE"]),
        distributed_optimizer=int(os.environ["WORLD_SIZE"]) > 1,
        recompute_activations=True,
        micro_batch_tokens=max(16_384, tokens),
        minibatches=2,
        learning_rate=1e-6,
    )
    place = ranks.join(settings)
    trainer = Trainer(settings, place, model, lambda *_: None)
    shape = load_model(model)
    batch = batch_of(sequences, tokens, trainer.architecture.vocab)
    told = {}
    for step in range(WARM_UP_STEPS + TIMED_STEPS):
        if step == WARM_UP_STEPS:
            place.barrier()
            began_s = time.monotonic()
        told = trainer.train(step + 1, batch)
    torch.cuda.synchronize()
    place.barrier()
    seconds = (time.monotonic() - began_s) / TIMED_STEPS
    if place.rank:
        return
    answers = int((batch.lengths - batch.prompt_tokens).sum())
    forward_flops = (
        len(batch.tokens) * shape.layers_flops_per_token
        + answers * shape.head_flops_per_token
        + int((batch.lengths**2).sum()) * shape.attention_flops_per_token_squared
    )
    name = torch.cuda.get_device_name()
    peaks = [gpu.dense_flops for key, gpu in GPUS.items() if key.split("-")[0] in name]
    flops_per_s = FORWARDS * forward_flops / seconds / place.size
    out.write_text(
        json.dumps(
            {
                "gpu": name,
                "gpus": place.size,
                "model": str(shape.name),
                "step_seconds": seconds,
                "tokens_per_second": len(batch.tokens) / seconds,
                "flops_per_second_per_gpu": flops_per_s,
                "model_flops_utilisation": flops_per_s / max(peaks) if peaks else None,
                "peak_memory_bytes": torch.cuda.max_memory_allocated(),
                "stats": told,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
