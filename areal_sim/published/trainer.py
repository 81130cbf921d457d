"""Figure 6a: one trainer alone, with dynamic and with static micro-batches.

The trainer packs one PPO minibatch of sampled answers over its ranks and pays for the micro-batches
as the simulated trainer does (`areal_sim.trainer.phases`). The figure's unit is TFLOP/s a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from areal_sched import packing
from areal_sched.packing import PackedStep
from areal_sched.packing.micro_batches import equal_runs
from areal_sim.build import source_of
from areal_sim.config import RunConfig
from areal_sim.costs import Roofline
from areal_sim.costs.roofline import BACKWARD_FORWARDS
from areal_sim.published.calibration import Values
from areal_sim.published.rows import FIGURE_6A_STATIC_MICRO_BATCHES, Packing
from areal_sim.published.systems import config_of
from areal_sim.trainer import phases

Method = Literal["algorithm_1", "first_fit_decreasing", "static"]
METHODS: tuple[Method, ...] = ("algorithm_1", "first_fit_decreasing", "static")

PIPELINE_STAGES = {"1.5b": 1}
"""Of the figure's 1B model, which fits a single GPU; the others are laid out as in the runs."""

_ORDER_SEED = 1
"""Answers come in the order they finished in, which has nothing to do with their prompts."""


@dataclass(frozen=True, slots=True)
class Training:
    """One way to pack, costed: ``tflops`` per GPU and second, micro-batches of a rank, its time."""

    tflops: float
    micro_batches: float
    seconds: float


def train(case: Packing, method: Method, values: Values | None = None) -> Training:
    """Pack one minibatch, and pay for it."""
    changes = [f"cluster.nodes={case.nodes}"]
    if case.model in PIPELINE_STAGES:
        changes.append(f"sim.trainer.pipeline_parallel={PIPELINE_STAGES[case.model]}")
    config = config_of(case.model, "sync", changes, values)
    ranks = config.data_parallel_ranks
    sizes = _sizes(config, config.train_batch_rollouts // config.sim.trainer.minibatches)
    costs = Roofline(
        cluster=config.hardware(),
        model=config.model_shape(),
        server_layout=config.server_layout(),
        trainer_layout=config.trainer_layout(),
        factors=config.sim.cost.factors,
    )
    packed = _pack(config, sizes, method)
    update = next(x for x in phases(costs.trainer(), packed, sizes) if x.activity == "minibatch")
    flops = sum(_flops(config, size) for size in sizes)
    return Training(
        tflops=flops / update.seconds / config.training_gpus / 1e12,
        micro_batches=update.micro_batches / ranks,
        seconds=update.seconds,
    )


def _sizes(config: RunConfig, count: int) -> list[int]:
    """Prompt and answer tokens of so many sequences of the model's workload, as they finish."""
    group = config.workload.group_size
    batch = source_of(config.workload, config.sim.seed).groups(
        0, -(-count // group), group_size=group, step=0
    )
    sizes = np.asarray(batch.prompt_tokens)[:, None] + np.asarray(batch.response_tokens)
    shuffled = np.random.default_rng(_ORDER_SEED).permutation(sizes.ravel()[:count])
    return [int(x) for x in shuffled]


def _pack(config: RunConfig, sizes: list[int], method: Method) -> PackedStep:
    ranks = config.data_parallel_ranks
    if method != "static":
        return packing.pack(
            sizes,
            capacity=config.sim.trainer.micro_batch_tokens,
            ranks=ranks,
            algorithm=getattr(packing, method),
        )
    # By count alone: what every rank and every micro-batch gets is as the answers come.
    count = FIGURE_6A_STATIC_MICRO_BATCHES
    shares = [list(own) for own in equal_runs(len(sizes), ranks)]
    return [[[[own[i] for i in run] for run in equal_runs(len(own), count)] for own in shares]]


def _flops(config: RunConfig, size: int) -> float:
    """What the trainer computes for one sequence: forward, backward, and recomputation."""
    model = config.model_shape()
    passes = 1 + BACKWARD_FORWARDS
    again = 1 if config.sim.trainer.recompute_activations else 0
    layers = model.layers_flops_per_token * size + model.attention_flops_per_token_squared * size**2
    return (passes + again) * layers + passes * model.head_flops_per_token * size
