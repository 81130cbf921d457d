"""Forward and backward over micro-batches, by Megatron's schedules, and what they told."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from megatron.core.distributed import finalize_model_grads
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor

from areal_real.ppo.loss import join_stats
from areal_real.training.micro_batch import MicroBatch
from areal_real.training.ranks import Ranks

Loss = Callable[[MicroBatch, Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]
"""Takes a micro-batch with its log-probabilities and entropies; sums over its generated tokens."""


@dataclass(slots=True)
class Told:
    """Of one pass over the micro-batches of all ranks. Whole on rank 0, empty elsewhere.

    Attributes:
        stats: sums over generated tokens.
        waiting_ns: that an average process waited for the slowest at the end.
        micro_batches: of all data-parallel ranks.
    """

    stats: dict[str, float] = field(default_factory=dict)
    waiting_ns: int = 0
    micro_batches: int = 0


class Pipeline:
    """Runs micro-batches through the model.

    Args:
        model: wrapped in Megatron's data parallelism.
        config: Megatron's, of the model.
        ranks: the place of this process.
    """

    def __init__(self, model: Any, config: Any, ranks: Ranks) -> None:
        self._model = model
        self._ranks = ranks
        self._waiting_ns = 0
        self._schedule = get_forward_backward_func()
        config.finalize_model_grads_func = self._finalize

    def logprobs(self, micros: Sequence[MicroBatch]) -> Told:
        """Set ``proximal`` of micro-batches to log-probabilities under the weights as they are."""

        def keep(
            micro: MicroBatch, logprobs: Tensor, entropy: Tensor
        ) -> tuple[Tensor, dict[str, Tensor]]:
            micro.proximal = logprobs
            return logprobs.sum(), {}

        with torch.no_grad():
            stats = self._run(micros, keep, forward_only=True)
        self._wait()
        return self._tell(stats, micros)

    def gradients(self, micros: Sequence[MicroBatch], loss: Loss) -> Told:
        """Gradients of the mean of a loss over the generated tokens of all ranks."""
        self._model.zero_grad_buffer()
        return self._tell(self._run(micros, loss, forward_only=False), micros)

    def _run(
        self, micros: Sequence[MicroBatch], loss: Loss, *, forward_only: bool
    ) -> dict[str, float]:
        if not micros:
            # Fewer sequences than ranks: nothing to compute, but the others reduce their gradients.
            if not forward_only:
                none = torch.zeros((), dtype=torch.int, device=self._ranks.device)
                self._finalize([self._model], none)
            return {}

        def ended(
            micro: MicroBatch, output: tuple[Tensor, Tensor]
        ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
            total, stats = loss(micro, *output)
            tokens = torch.tensor(len(micro.targets), dtype=torch.int, device=total.device)
            return total, tokens, {"loss": total.detach(), **stats}

        def step(waiting: Any, model: Any) -> tuple[Any, Any]:
            micro = next(waiting)
            return model(micro), partial(ended, micro)

        told = self._schedule(
            forward_step_func=step,
            data_iterator=iter(micros),
            model=[self._model],
            num_microbatches=len(micros),
            seq_length=max(micro.tokens.shape[1] for micro in micros),
            micro_batch_size=1,
            forward_only=forward_only,
        )
        if not self._ranks.last_stage or self._ranks.tensor != 0:
            return {}
        return join_stats(_numbers(stats) for stats in told)

    def _finalize(self, model: Any, tokens: Tensor | None, **options: Any) -> None:
        self._wait()
        finalize_model_grads(model, tokens, **options)

    def _wait(self) -> None:
        """Wait for the slowest process, so that waiting is not taken for communication."""
        if self._ranks.device.type == "cuda":
            torch.cuda.synchronize()
        began_ns = time.monotonic_ns()
        self._ranks.barrier()
        self._waiting_ns = time.monotonic_ns() - began_ns if self._ranks.size > 1 else 0

    def _tell(self, stats: dict[str, float], micros: Sequence[MicroBatch]) -> Told:
        ranks = self._ranks
        first = ranks.tensor == 0 and ranks.pipeline == 0
        told = ranks.gather([stats, self._waiting_ns, len(micros) if first else 0])
        if not told:
            return Told()
        return Told(
            stats=join_stats(part for part, *_ in told),
            waiting_ns=sum(waiting for _, waiting, _ in told) // len(told),
            micro_batches=sum(count for *_, count in told),
        )


def _numbers(stats: dict[str, Tensor]) -> dict[str, float]:
    if not stats:
        return {}
    values = torch.stack([value.double() for value in stats.values()]).tolist()
    return dict(zip(stats, values, strict=True))
