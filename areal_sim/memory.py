"""What fits: KV-cache capacity of a server, memory of a trainer GPU, both on one GPU.

Out of memory is a result: `DoesNotFit` says what did not fit, by how much, and what would.
Gigabytes in messages are 1e9 bytes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from areal_sched.errors import ArealError, ConfigError

from .hardware import GIGA, Gpu, ServerLayout, TrainerLayout
from .models import ModelShape

# Bytes a parameter, mixed-precision training with fp16 parameters, fp32 gradients and optimizer
# state (AReaL paper, table of training settings; Megatron-Core distributed optimizer).
PARAMETER_BYTES = 2
GRADIENT_BYTES = 4
OPTIMIZER_BYTES = 12  # fp32 master copy, first and second moment; sharded over data parallel
ACTIVATION_BYTES = 2  # fp16

# Bytes of one vocabulary entry of one token's logits at the peak: fp16 logits 2, fp32 softmax kept
# for backward 4, fp16 gradient 2. Assumed: no chunking of the LM head.
LOGIT_BYTES = 8

# While one layer runs backward its activations and their gradients are alive together. Assumed.
BACKWARD_COPIES = 2

# Share of a trainer GPU that its allocator can fill; the rest is CUDA context, NCCL buffers and
# fragmentation. Assumed.
TRAINER_USABLE_FRACTION = 0.94

# Default limit on running requests in SGLang 0.4 to 0.5: KV tokens / context * 512, within bounds.
RUNNING_PER_CONTEXT = 512
RUNNING_LOWEST = 2048
RUNNING_HIGHEST = 4096


class DoesNotFit(ArealError, ValueError):
    """Something needs more memory than there is.

    Attributes:
        what: what did not fit.
        need_bytes: what it needs on one GPU.
        have_bytes: what one GPU has for it.
        advice: what would help.
    """

    def __init__(self, *, what: str, need_bytes: int, have_bytes: int, advice: str) -> None:
        self.what = what
        self.need_bytes = need_bytes
        self.have_bytes = have_bytes
        self.advice = advice
        super().__init__(f"{what}, {_gb(self.missing_bytes)} too much: {advice}")

    def __reduce__(self) -> tuple[Callable[..., DoesNotFit], tuple[()]]:
        """Let the error travel between processes: its arguments are keywords."""
        fields = ("what", "need_bytes", "have_bytes", "advice")
        return functools.partial(type(self), **{name: getattr(self, name) for name in fields}), ()

    @property
    def missing_bytes(self) -> int:
        """How many bytes are missing on one GPU."""
        return self.need_bytes - self.have_bytes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServerMemory:
    """One inference server. Bytes are per GPU, tokens and rollouts per server.

    Attributes:
        weight_bytes: model weights.
        kv_bytes: KV cache pool.
        kv_cache_tokens: tokens the pool holds.
        max_running_rollouts: the engine's own limit on running requests.
    """

    weight_bytes: int
    kv_bytes: int
    kv_cache_tokens: int
    max_running_rollouts: int

    def rollouts_of(self, tokens: int) -> int:
        """How many rollouts of that many tokens (prompt included) run without preemption."""
        return min(self.max_running_rollouts, self.kv_cache_tokens // tokens)


def server_memory(
    gpu: Gpu, model: ModelShape, layout: ServerLayout, *, context_tokens: int | None = None
) -> ServerMemory:
    """Divide a server's memory: static fraction = weights + KV cache, as SGLang does.

    Args:
        gpu: the GPU of the server.
        model: the model it serves.
        layout: tensor parallelism and static memory fraction.
        context_tokens: the longest rollout, prompt included; the model's maximum otherwise.

    Raises:
        DoesNotFit: the weights, or the weights and one rollout of that length, do not fit.
    """
    context = model.max_position_embeddings if context_tokens is None else context_tokens
    if context < 1:
        raise ConfigError(f"context_tokens = {context}: must be at least 1")
    per_token = model.kv_bytes_per_token_per_gpu(layout.tensor_parallel)
    budget = int(gpu.memory_bytes * layout.static_memory_fraction)
    weights = -(-model.weight_bytes // layout.tensor_parallel)
    where = f"{model.name} at tensor_parallel {layout.tensor_parallel}"
    if weights > budget:
        raise DoesNotFit(
            what=f"{where} needs {_gb(weights)} of weights, the server budget is {_gb(budget)}"
            f" ({layout.static_memory_fraction:g} of a {gpu.name})",
            need_bytes=weights,
            have_bytes=budget,
            advice=_server_advice(gpu, model, layout, 1),
        )
    kv_bytes = budget - weights
    kv_tokens = kv_bytes // per_token
    if kv_tokens < context and (context_tokens is not None or kv_tokens < 1):
        raise DoesNotFit(
            what=f"{where} has room for {kv_tokens} KV tokens, one rollout may need {context}"
            f" ({_gb(context * per_token)} on a {gpu.name}, {_gb(kv_bytes)} left by the weights)",
            need_bytes=context * per_token,
            have_bytes=kv_bytes,
            advice=_server_advice(gpu, model, layout, context),
        )
    return ServerMemory(
        weight_bytes=weights,
        kv_bytes=kv_bytes,
        kv_cache_tokens=kv_tokens,
        max_running_rollouts=max_running_rollouts(kv_tokens, context),
    )


def max_running_rollouts(kv_cache_tokens: int, context_tokens: int) -> int:
    """The engine's default limit on running requests, given its KV pool and longest context."""
    estimate = kv_cache_tokens * RUNNING_PER_CONTEXT // context_tokens
    return min(max(estimate, RUNNING_LOWEST), RUNNING_HIGHEST)


def _server_advice(gpu: Gpu, model: ModelShape, layout: ServerLayout, tokens: int) -> str:
    """The smallest tensor parallelism that would do."""
    budget = int(gpu.memory_bytes * layout.static_memory_fraction)
    for parallel in range(layout.tensor_parallel + 1, model.num_heads + 1):
        try:
            per_token = model.kv_bytes_per_token_per_gpu(parallel)
        except ConfigError:
            continue
        if -(-model.weight_bytes // parallel) + tokens * per_token <= budget:
            return f"use tensor_parallel >= {parallel}"
    return "no tensor parallelism of this model is enough; raise static_memory_fraction"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainerMemory:
    """The fullest trainer GPU, in bytes.

    Attributes:
        stage: its pipeline stage, counted from 0.
        parameter_bytes: fp16 parameters.
        gradient_bytes: fp32 gradients.
        optimizer_bytes: its shard of the fp32 optimizer state.
        activation_bytes: activations of the micro-batches in flight.
        logit_bytes: logits of one micro-batch; 0 off the last stage.
        usable_bytes: what the allocator can fill.
    """

    stage: int
    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    logit_bytes: int
    usable_bytes: int

    @property
    def state_bytes(self) -> int:
        """What stays between steps: parameters, gradients, optimizer state."""
        return self.parameter_bytes + self.gradient_bytes + self.optimizer_bytes

    @property
    def total_bytes(self) -> int:
        """Peak during a step."""
        return self.state_bytes + self.activation_bytes + self.logit_bytes


def trainer_memory(gpu: Gpu, model: ModelShape, layout: TrainerLayout) -> TrainerMemory:
    """Memory of the fullest GPU of the trainer under a 1F1B pipeline.

    Stage s keeps pp - s micro-batches in flight. With full recomputation a layer stores only its
    input, and one layer's activations (per-token widths after Korthikanti et al.,
    arXiv 2205.05198, for a gated MLP and flash attention) live again during its backward.
    Activations are divided by tensor parallelism (sequence parallel).

    Raises:
        DoesNotFit: the fullest GPU needs more than its allocator can fill.
    """
    stages = _stages(gpu, model, layout)
    fullest = max(stages, key=lambda stage: stage.total_bytes)
    if fullest.total_bytes > fullest.usable_bytes:
        raise DoesNotFit(
            what=f"training {model.name} at tensor_parallel {layout.tensor_parallel},"
            f" pipeline_parallel {layout.pipeline_parallel}, data_parallel {layout.data_parallel}"
            f" needs {_gb(fullest.total_bytes)} on stage {fullest.stage}"
            f" (states {_gb(fullest.state_bytes)}, activations {_gb(fullest.activation_bytes)},"
            f" logits {_gb(fullest.logit_bytes)}), a {gpu.name} has"
            f" {_gb(fullest.usable_bytes)} usable",
            need_bytes=fullest.total_bytes,
            have_bytes=fullest.usable_bytes,
            advice=_trainer_advice(fullest, layout),
        )
    return fullest


def _stages(gpu: Gpu, model: ModelShape, layout: TrainerLayout) -> list[TrainerMemory]:
    tp, pp, tokens = layout.tensor_parallel, layout.pipeline_parallel, layout.micro_batch_tokens
    model.check_tensor_parallel(tp)
    if pp > model.num_layers:
        raise ConfigError(
            f"trainer.pipeline_parallel = {pp}: {model.name} has only {model.num_layers} layers"
        )
    layers = -(-model.num_layers // pp)
    layer_bytes = ACTIVATION_BYTES * tokens * _layer_activations_per_token(model) // tp
    input_bytes = ACTIVATION_BYTES * tokens * model.hidden_size // tp
    stages = []
    for stage in range(pp):
        first, last = stage == 0, stage == pp - 1
        parameters = layers * model.layer_parameters
        # A tied head on another stage than the embedding is a copy of it.
        matrices = 1 if first and last and model.tied_embeddings else int(first) + int(last)
        parameters = -(-(parameters + matrices * model.embedding_parameters) // tp)
        in_flight = pp - stage
        stored = layers * in_flight * (input_bytes if layout.recompute else layer_bytes)
        alive = layer_bytes * (BACKWARD_COPIES if layout.recompute else BACKWARD_COPIES - 1)
        logits = LOGIT_BYTES * tokens * model.vocab_size // tp if last else 0
        stages.append(
            TrainerMemory(
                stage=stage,
                parameter_bytes=PARAMETER_BYTES * parameters,
                gradient_bytes=GRADIENT_BYTES * parameters,
                optimizer_bytes=-(-OPTIMIZER_BYTES * parameters // layout.data_parallel),
                activation_bytes=stored + alive,
                logit_bytes=logits,
                usable_bytes=int(gpu.memory_bytes * TRAINER_USABLE_FRACTION),
            )
        )
    return stages


def _layer_activations_per_token(model: ModelShape) -> int:
    """Values one layer keeps for backward, per token.

    Two norms and the two linear inputs behind them (4 h), q, k, v, the attention output, and
    gate, up and their product.
    """
    attention = 2 * model.query_width + 2 * model.kv_width
    return 4 * model.hidden_size + attention + 3 * model.intermediate_size


def _trainer_advice(fullest: TrainerMemory, layout: TrainerLayout) -> str:
    room = fullest.usable_bytes - fullest.state_bytes
    if room > 0:
        per_token = (fullest.activation_bytes + fullest.logit_bytes) / layout.micro_batch_tokens
        if (tokens := int(room / per_token)) >= 1:
            return f"use micro_batch_tokens <= {tokens}, or more tensor or pipeline parallelism"
    return "the states alone are too large: use more tensor or pipeline parallelism"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ColocatedMemory:
    """Both phases on the same GPUs, bytes per GPU.

    Attributes:
        server: the engine during generation.
        trainer: the trainer during training.
        generate_bytes: needed during generation: engine and trainer states that stay.
        train_bytes: needed during training: trainer and engine parts that stay.
        moved_bytes: what a switch of phase moves between GPU and host, one way.
    """

    server: ServerMemory
    trainer: TrainerMemory
    generate_bytes: int
    train_bytes: int
    moved_bytes: int


def colocated_memory(
    gpu: Gpu,
    model: ModelShape,
    server: ServerLayout,
    trainer: TrainerLayout,
    *,
    offload_trainer: bool = True,
    offload_engine: bool = True,
    context_tokens: int | None = None,
) -> ColocatedMemory:
    """Memory where the same GPUs generate and train in turn.

    Args:
        gpu: the GPU.
        model: the model, both served and trained.
        server: layout of the engine; its static fraction is of the whole GPU.
        trainer: layout of the trainer.
        offload_trainer: trainer states wait in host memory during generation.
        offload_engine: the engine's weights and KV cache are released during training.
        context_tokens: the longest rollout, prompt included.

    Raises:
        DoesNotFit: either engine or trainer alone, or one phase with what stays of the other.
    """
    engine = server_memory(gpu, model, server, context_tokens=context_tokens)
    training = trainer_memory(gpu, model, trainer)
    usable = training.usable_bytes
    static = engine.weight_bytes + engine.kv_bytes
    generate = static + (0 if offload_trainer else training.state_bytes)
    if generate > usable and not offload_trainer:
        raise DoesNotFit(
            what=f"generating with {model.name} needs {_gb(generate)} (engine {_gb(static)},"
            f" trainer states that stay {_gb(training.state_bytes)}), a {gpu.name} has"
            f" {_gb(usable)} usable",
            need_bytes=generate,
            have_bytes=usable,
            advice="offload the trainer's states, or lower static_memory_fraction",
        )
    train = training.total_bytes + (0 if offload_engine else static)
    if train > usable:
        raise DoesNotFit(
            what=f"training {model.name} needs {_gb(train)} (trainer"
            f" {_gb(training.total_bytes)}, engine that stays {_gb(static)}), a {gpu.name} has"
            f" {_gb(usable)} usable",
            need_bytes=train,
            have_bytes=usable,
            advice="release the engine's memory while training, or lower static_memory_fraction",
        )
    return ColocatedMemory(
        server=engine,
        trainer=training,
        generate_bytes=generate,
        train_bytes=train,
        # Gradients need not travel: the next step starts them from zero.
        moved_bytes=training.parameter_bytes + training.optimizer_bytes if offload_trainer else 0,
    )


def _gb(count: int) -> str:
    return f"{count / GIGA:.1f} GB"
