"""Megatron's optimizer: one step with its gradient norm, and its state, parameter by parameter."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.distributed as dist
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from torch import Tensor

from areal_real.errors import BackendError
from areal_real.training.ranks import Ranks
from areal_real.training.settings import TrainerSettings

Kind = Literal["weight", "exp_avg", "exp_avg_sq"]
KINDS: tuple[Kind, ...] = ("weight", "exp_avg", "exp_avg_sq")
"""What there is of each parameter, in float32: master weight, first and second moment."""


class Optimizer:
    """AdamW over the parameters of this process, or over its share of them.

    Args:
        model: wrapped in Megatron's data parallelism.
        settings: the trainer's.
        ranks: the place of this process.
    """

    def __init__(self, model: Any, settings: TrainerSettings, ranks: Ranks) -> None:
        self._settings = settings
        self._ranks = ranks
        config = OptimizerConfig(
            optimizer="adam",
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            adam_beta1=settings.adam_beta1,
            adam_beta2=settings.adam_beta2,
            adam_eps=settings.adam_eps,
            clip_grad=settings.grad_clip,
            bf16=settings.dtype == "bfloat16",
            params_dtype=torch.bfloat16 if settings.dtype == "bfloat16" else torch.float32,
            use_distributed_optimizer=settings.distributed_optimizer,
        )
        self._all = get_megatron_optimizer(config, [model], use_gloo_process_groups=False)
        (self._one,) = self._all.chained_optimizers
        self._adam: torch.optim.Optimizer = self._one.optimizer
        self._mains = dict(self._main_parameters(model))

    def zero_grad(self) -> None:
        """Forget gradients."""
        self._all.zero_grad()

    def step(self, learning_rate: float) -> float:
        """Clip the gradients that are ready and take a step.

        Returns:
            Norm of the whole model's gradient before clipping.

        Raises:
            BackendError: the norm is no finite number, on all processes alike; no step is taken.
        """
        self._all.prepare_grads()
        norm = float(self._all.get_grad_norm())
        if not math.isfinite(norm):
            raise BackendError(f"the gradient's norm is {norm}: no step was taken")
        if self._settings.grad_clip > 0:
            clip_grad_by_total_norm_fp32(
                self._one.get_parameters(), max_norm=self._settings.grad_clip, total_norm=norm
            )
        for group in self._all.param_groups:
            # Both are left to Megatron's scheduler, without which norms and biases would decay.
            group["lr"] = learning_rate * group["lr_mult"]
            group["weight_decay"] = self._settings.weight_decay * group["wd_mult"]
        self._all.step_with_ready_grads()
        return norm

    def reset(self) -> None:
        """Forget moments and steps; the weights stay."""
        self._adam.state.clear()
        for group in self._adam.param_groups:
            if "step" in group:
                group["step"] = 0

    def value(self, parameter: Tensor, kind: Kind) -> Tensor:
        """Float32 value of a parameter of this rank, in its shape; zeros before the first step.

        With the distributed optimizer all data-parallel ranks of this process call it.
        """
        main, first, last = self._mains.get(parameter, (None, 0, 0))
        found = None
        if main is not None:
            found = main.detach() if kind == "weight" else self._adam.state.get(main, {}).get(kind)
        if not self._settings.distributed_optimizer:
            assert main is not None
            return torch.zeros_like(main) if found is None else found
        whole = torch.zeros(parameter.numel(), dtype=torch.float32, device=parameter.device)
        if found is not None:
            whole[first:last] = found.view(-1)
        if self._ranks.data_parallel > 1:
            # As integers, of which all but one rank have 0: the sum is that rank's bits.
            dist.all_reduce(whole.view(torch.int32), group=self._ranks.data_group)
        return whole.view(parameter.shape)

    def put(self, parameter: Tensor, kind: Kind, value: Tensor) -> None:
        """Set what `value` returns; the weight also for the forward pass. Moments: after a step."""
        main, first, last = self._mains.get(parameter, (None, 0, 0))
        with torch.no_grad():
            if kind == "weight":
                parameter.copy_(value)
            if main is None:
                return
            own = value.to(main.device, torch.float32)
            if self._settings.distributed_optimizer:
                own = own.reshape(-1)[first:last]
            if kind == "weight":
                main.copy_(own.view(main.shape))
            else:
                self._adam.state[main][kind] = own.reshape(main.shape).clone()

    def set_steps(self, steps: int) -> None:
        """Set how many steps there were since the last `reset`: Adam corrects its bias by it."""
        for group in self._adam.param_groups:
            if not isinstance(self._adam, torch.optim.AdamW):
                group["step"] = steps  # the fused Adam of apex and Transformer Engine
                continue
            for main in group["params"]:
                self._adam.state[main]["step"] = torch.tensor(float(steps))

    def _main_parameters(self, model: Any) -> Iterator[tuple[Tensor, tuple[Tensor, int, int]]]:
        """Each parameter's float32 tensor that Adam steps, and the range it is of the parameter."""
        one = self._one
        if not isinstance(one, DistributedOptimizer):
            for parameter in model.parameters():
                main = getattr(parameter, "main_param", None)
                main = parameter if main is None else main
                yield parameter, (main, 0, main.numel())
            return
        pairs = (
            (one.model_float16_groups, one.shard_fp32_from_float16_groups),
            (one.model_fp32_groups, one.shard_fp32_groups),
        )
        for parameter_groups, shard_groups in pairs:
            for parameters, shards in zip(parameter_groups, shard_groups, strict=True):
                for parameter, shard in zip(parameters, shards, strict=True):
                    place = one._get_model_param_range_map(parameter)["param"]
                    yield parameter, (shard, place.start, place.end)
