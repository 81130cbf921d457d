"""The table ``[real.trainer]``: the training world."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from areal_sched.config.options import Section, flag, number, whole


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainerConfig(Section):
    """The trainer, Megatron-Core. The optimizer is Adam with decoupled decay."""

    TABLE: ClassVar[str] = "real.trainer"

    tensor_parallel: int = whole("GPUs, or processes on the CPU, that share every layer", 1)
    pipeline_parallel: int = whole("pipeline stages", 1)
    data_parallel: int = whole("replicas of the model", 1)
    distributed_optimizer: bool = flag(
        "optimizer state is spread over the data-parallel ranks", False
    )
    recompute_activations: bool = flag(
        "full activation recomputation: less memory, one more forward pass of the layers", False
    )
    minibatches: int = whole("PPO minibatches of a training step, one optimizer step each", 1)
    micro_batch_tokens: int = whole("most tokens of one micro-batch", 4096, unit="tokens")
    learning_rate: float = number("after the warm-up, constant", 1e-3, above=0)
    warmup_steps: int = whole(
        "optimizer steps over which the learning rate rises from 0", 0, unit="steps", least=0
    )
    adam_beta1: float = number("decay of the first moment", 0.9, least=0, below=1)
    adam_beta2: float = number("decay of the second moment", 0.95, least=0, below=1)
    adam_eps: float = number("added to the root of the second moment", 1e-5, above=0)
    weight_decay: float = number("decoupled weight decay", 0.0, least=0)
    grad_clip: float = number("greatest norm of the whole gradient; 0: no clipping", 1.0, least=0)
    threads: int = whole("CPU threads of one process of the trainer", 1)
    start_timeout_s: float = number("until all ranks are ready", 300.0, unit="s", above=0)

    @property
    def model_parallel(self) -> int:
        """Processes of one replica of the model: tensor times pipeline parallelism."""
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def world_size(self) -> int:
        """Processes of the trainer; on GPUs each has one."""
        return self.model_parallel * self.data_parallel
