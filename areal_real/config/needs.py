"""What a run needs of machines, estimated from its configuration and the sizes of its model.

Estimates, not measurements: they tell a run that fits from one that cannot.
"""

from __future__ import annotations

import dataclasses

from areal_real.config.run import RealConfig
from areal_sched.config.model_shape import ModelShape

GRADIENT_BYTES = 4
"""A parameter; gradients are accumulated in float32 (`areal_real.training.settings`)."""

MOMENTS_BYTES = 8
"""A parameter; Adam's two moments in float32."""

MASTER_BYTES = 4
"""A parameter; the optimizer's float32 copy where the model itself is bfloat16."""

CHECKPOINT_BYTES = 12
"""A parameter in a checkpoint: weight and two moments (`areal_real.training.checkpoint`)."""

LOGITS_AT_ONCE = 2**28
"""Logits that one process holds at a time (`areal_real.training.logprobs`)."""

LOGIT_BYTES = 20
"""A logit at the peak: as made, in float32, shifted, its probability and its gradient."""

BACKWARD_COPIES = 2
"""While one layer runs backward its activations and their gradients are alive together. Assumed."""

SERVER_PROCESS_BYTES = 1_900_000_000
"""Host memory of an SGLang server beside model and KV cache. Measured, SGLang 0.5.21 on a CPU."""

TRAINER_PROCESS_BYTES = 900_000_000
"""Host memory of a trainer process beside the model, Measured: 0.85e9, torch 2.13 and Megatron-Core
0.16 on a CPU."""

MAIN_PROCESS_BYTES = 500_000_000
"""Host memory of `areal-real` itself. Assumed."""

REWARD_WORKER_BYTES = 150_000_000
"""Host memory of a reward worker. Assumed."""

RUN_FOLDER_BYTES = 200_000_000
"""Journal, logs and metrics. Assumed."""

TRAJECTORY_TOKEN_BYTES = 20
"""A token kept until its step is checkpointed: id 8, log-probability 4, weight version 8."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainerNeed:
    """Memory of the fullest process of the trainer, in bytes.

    Attributes:
        weight_bytes, gradient_bytes, optimizer_bytes: what stays between steps.
        activation_bytes: of the micro-batches in flight, at most.
        logit_bytes: of the tokens whose logits are held at once; 0 off the last stage.
    """

    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    logit_bytes: int

    @property
    def total_bytes(self) -> int:
        """All together."""
        return sum(dataclasses.astuple(self))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServerNeed:
    """Memory of one GPU, or process, of a server, in bytes.

    Attributes:
        weight_bytes: its share of the weights.
        kv_bytes: its share of the KV cache: what is configured, or else the longest rollout.
        kv_token_bytes: its share of one token's keys and values.
    """

    weight_bytes: int
    kv_bytes: int
    kv_token_bytes: int

    @property
    def total_bytes(self) -> int:
        """Weights and KV cache."""
        return self.weight_bytes + self.kv_bytes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a run needs.

    Attributes:
        gpus: of all nodes; 0 on the CPU.
        nodes: machines.
        processes: of servers and trainer.
        threads: CPU threads that these keep busy.
        trainer, server: memory of one process; None where the model's sizes are not known.
        host_bytes: memory of the host, on the CPU; at least this much.
        disk_bytes: weights and checkpoints in the run directory, at their largest.
        answer_bytes: answers that are kept beside, if all were as long as they may be.
        ports: that are listened on at once.
        open_files: of the main process, mostly connections.
    """

    gpus: int
    nodes: int
    processes: int
    threads: int
    trainer: TrainerNeed | None
    server: ServerNeed | None
    host_bytes: int
    disk_bytes: int
    answer_bytes: int
    ports: int
    open_files: int


def needs_of(config: RealConfig, model: ModelShape | None) -> Needs:
    """Estimate what a run needs.

    Args:
        config: the run.
        model: sizes of its model; None: not known, then it counts as nothing, as a tiny one does.
    """
    server, trainer = config.real.server, config.real.trainer
    servers = server.count * server.tensor_parallel
    training = None if model is None else trainer_need(config, model)
    serving = None if model is None else server_need(config, model)
    host = (
        MAIN_PROCESS_BYTES
        + config.real.rewards.workers * REWARD_WORKER_BYTES
        + servers * (SERVER_PROCESS_BYTES + (serving.total_bytes if serving else 0))
        + trainer.world_size * (TRAINER_PROCESS_BYTES + (training.total_bytes if training else 0))
    )
    return Needs(
        gpus=config.gpus_needed,
        nodes=max(1, -(-config.gpus_needed // config.cluster.gpus_per_node)),
        processes=servers + trainer.world_size,
        threads=servers * server.threads + trainer.world_size * trainer.threads,
        trainer=training,
        server=serving,
        host_bytes=host,
        disk_bytes=_disk_bytes(config, model),
        answer_bytes=TRAJECTORY_TOKEN_BYTES
        * _uncovered_steps(config)
        * config.train_batch_rollouts
        * config.workload.max_context_tokens,
        # Each server its own; where ranks meet, and one to broadcast weights.
        ports=server.count + 2,
        # A connection for each rollout and some beside; Python, torch and logs.
        open_files=256 + 2 * min(config.bounds.max_rollouts_in_flight, _running(config)),
    )


def trainer_need(config: RealConfig, model: ModelShape) -> TrainerNeed:
    """Memory of the fullest trainer process under a 1F1B pipeline.

    Stage s of p keeps p - s micro-batches in flight. With full recomputation a layer keeps only
    its input, and one layer's activations are made again in its backward pass. Widths per token
    are after Korthikanti et al. (arXiv 2205.05198), for a gated MLP and no score matrix.
    """
    stages = range(config.real.trainer.pipeline_parallel)
    return max((_stage(config, model, stage) for stage in stages), key=lambda x: x.total_bytes)


def _stage(config: RealConfig, model: ModelShape, stage: int) -> TrainerNeed:
    trainer, width = config.real.trainer, config.real.model.bytes_per_parameter
    tp, pp, tokens = trainer.tensor_parallel, trainer.pipeline_parallel, trainer.micro_batch_tokens
    first, last = stage == 0, stage == pp - 1
    layers = -(-model.num_layers // pp)
    # A tied head on another stage than the embedding is a copy of it.
    matrices = 1 if first and last and model.tied_embeddings else int(first) + int(last)
    parameters = layers * model.layer_parameters + matrices * model.embedding_parameters
    parameters = -(-parameters // tp)
    optimizer = MOMENTS_BYTES + (0 if width == MASTER_BYTES else MASTER_BYTES)
    shards = trainer.data_parallel if trainer.distributed_optimizer else 1
    # Two norms and what follows each (4 h, whole on every tensor-parallel rank); q, k, v and the
    # attention's output; gate, up and their product.
    inner = 2 * model.query_width + 2 * model.kv_width + 3 * model.intermediate_size
    layer_bytes = width * tokens * (4 * model.hidden_size + -(-inner // tp))
    input_bytes = width * tokens * model.hidden_size
    recompute = trainer.recompute_activations
    kept = layers * (pp - stage) * (input_bytes if recompute else layer_bytes)
    alive = layer_bytes * (BACKWARD_COPIES if recompute else BACKWARD_COPIES - 1)
    logits = min(tokens * -(-model.vocab_size // tp), LOGITS_AT_ONCE) if last else 0
    return TrainerNeed(
        weight_bytes=width * parameters,
        gradient_bytes=GRADIENT_BYTES * parameters,
        optimizer_bytes=-(-optimizer * parameters // shards),
        activation_bytes=kept + alive,
        logit_bytes=LOGIT_BYTES * logits,
    )


def server_need(config: RealConfig, model: ModelShape) -> ServerNeed:
    """Memory of one GPU, or process, of a server."""
    server, width = config.real.server, config.real.model.bytes_per_parameter
    served = dataclasses.replace(model, bytes_per_parameter=width)
    per_token = served.kv_bytes_per_token_per_gpu(server.tensor_parallel)
    tokens = server.kv_cache_tokens or config.workload.max_context_tokens
    return ServerNeed(
        weight_bytes=-(-served.weight_bytes // server.tensor_parallel),
        kv_bytes=tokens * per_token,
        kv_token_bytes=per_token,
    )


def _uncovered_steps(config: RealConfig) -> int:
    """Most steps since the oldest checkpoint that is kept."""
    real = config.real
    return min(config.workload.steps, real.keep_checkpoints * real.checkpoint_every_steps + 1)


def _disk_bytes(config: RealConfig, model: ModelShape | None) -> int:
    """Weights and checkpoints, and the small files beside them."""
    if model is None:
        return RUN_FOLDER_BYTES
    real = config.real
    # Weights since the oldest checkpoint, and those that are evaluated.
    every = real.evaluation.every_steps
    evaluated = 1 + (config.workload.steps // every if every is not None else 0)
    versions = _uncovered_steps(config) + evaluated
    weights = versions * model.parameters * real.model.bytes_per_parameter
    # The new checkpoint is there before the oldest goes.
    checkpoints = (real.keep_checkpoints + 1) * model.parameters * CHECKPOINT_BYTES
    return RUN_FOLDER_BYTES + weights + checkpoints


def _running(config: RealConfig) -> int:
    return config.real.server.count * config.real.server.max_running_rollouts
