"""What a trainer is told once, when it starts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from areal_sched.errors import ConfigError

Device = Literal["cpu", "cuda"]
DType = Literal["float32", "bfloat16"]
Objective = Literal["decoupled", "naive"]
Baseline = Literal["grpo", "rloo", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerSettings:
    """All that a trainer world needs beside the model's folder. Travels as JSON.

    Attributes:
        device: ``cpu`` (gloo) or ``cuda`` (NCCL).
        dtype: of the weights in the forward pass. With ``bfloat16`` the optimizer keeps float32
            master weights and gradients are accumulated and reduced in float32.
        seed: of weights that the model's folder does not have.
        temperature: that answers are sampled at; log-probabilities are those of logits divided by
            it, as SGLang reports them.
        tensor_parallel, pipeline_parallel, data_parallel: processes are their product.
        distributed_optimizer: split optimizer state over the data-parallel ranks.
        recompute_activations: keep only each layer's input and compute the rest again.
        micro_batch_tokens: most tokens of a micro-batch, prompts and answers.
        minibatches: optimizer steps in a training step.
        learning_rate: after warm-up.
        warmup_steps: optimizer steps over which the learning rate rises linearly.
        adam_beta1, adam_beta2, adam_eps, weight_decay: AdamW's; biases and norms do not decay.
        grad_clip: greatest norm of the whole gradient; 0: no clipping.
        threads: CPU threads of each process.
        objective, clip, behaviour_weight_cap: see `areal_real.ppo.loss`.
        entropy_coefficient: weight of the mean entropy that is added to the objective.
        baseline, divide_by_std, normalise_advantages: see `areal_real.ppo.advantages`.
        held_versions: exported weights that rank 0 keeps in host memory, to send them to servers;
            0: servers read files.
        bucket_bytes: most bytes of what is broadcast to a server at a time.
        start_timeout_s: for all processes to be up and to have loaded the model.

    Raises:
        ConfigError: a value is out of range.
    """

    micro_batch_tokens: int
    learning_rate: float
    device: Device = "cpu"
    dtype: DType = "float32"
    seed: int = 1
    temperature: float = 1.0
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    distributed_optimizer: bool = False
    recompute_activations: bool = False
    minibatches: int = 1
    warmup_steps: int = 0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    adam_eps: float = 1e-8
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    threads: int = 1
    objective: Objective = "decoupled"
    clip: float = 0.2
    behaviour_weight_cap: float | None = 5.0
    entropy_coefficient: float = 0.0
    baseline: Baseline = "grpo"
    divide_by_std: bool = False
    normalise_advantages: bool = True
    held_versions: int = 0
    bucket_bytes: int = 2**24
    start_timeout_s: float = 300.0

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ConfigError(f"trainer {name} = {value!r}: known: {', '.join(allowed)}")
        for name in _AT_LEAST_1:
            if getattr(self, name) < 1:
                raise ConfigError(f"trainer {name} = {getattr(self, name)}: must be at least 1")
        for name in _AT_LEAST_0:
            if getattr(self, name) < 0:
                raise ConfigError(f"trainer {name} = {getattr(self, name)}: must not be negative")
        for name in _ABOVE_0:
            if not getattr(self, name) > 0:
                raise ConfigError(f"trainer {name} = {getattr(self, name)}: must be above 0")

    @property
    def processes(self) -> int:
        """Of the whole world."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel

    def to_json(self) -> dict[str, Any]:
        """As `from_json` takes it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> TrainerSettings:
        """What `to_json` gave."""
        return cls(**fields)


_CHOICES = {
    "device": ("cpu", "cuda"),
    "dtype": ("float32", "bfloat16"),
    "objective": ("decoupled", "naive"),
    "baseline": ("grpo", "rloo", "none"),
}
_AT_LEAST_1 = (
    "tensor_parallel",
    "pipeline_parallel",
    "data_parallel",
    "micro_batch_tokens",
    "minibatches",
    "threads",
    "bucket_bytes",
)
_AT_LEAST_0 = ("held_versions", "warmup_steps", "weight_decay", "grad_clip", "entropy_coefficient")
_ABOVE_0 = ("learning_rate", "temperature", "adam_eps", "clip", "start_timeout_s")
