"""The trainer as one process of its world sees it. All processes call everything alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from numpy.typing import NDArray
from torch import Tensor

from areal_real.ppo.advantages import token_advantages
from areal_real.ppo.loss import join_stats, policy_loss, stats_per_token
from areal_real.training import cpu
from areal_real.training.architecture import Architecture
from areal_real.training.batch import Batch
from areal_real.training.checkpoint import Counters, is_checkpoint, load, save, weights_folder
from areal_real.training.clock import Clock, OnSpan
from areal_real.training.flat import Bucket
from areal_real.training.micro_batch import MicroBatch, check_batch, micro_batch_of
from areal_real.training.model import DTYPES, build_model
from areal_real.training.optimizer import Optimizer
from areal_real.training.pipeline import Loss, Pipeline
from areal_real.training.ranks import Ranks
from areal_real.training.settings import TrainerSettings
from areal_real.training.slots import Slot, all_shapes, slots_of
from areal_real.training.tensor_files import RandomTensors, TensorFolder, TensorSource
from areal_real.training.weights import (
    whole_weights,
    write_config,
    write_folder,
    write_tensors,
)
from areal_sched.packing import algorithm_1, longest_processing_time, pack


class Trainer:
    """A model with its optimizer, split over the processes of a world.

    Args:
        settings: the trainer's.
        ranks: the place of this process.
        folder: a model's Hugging Face folder, with or without weights, or a checkpoint.
        on_span: told of phases as they end, on rank 0.

    Raises:
        ConfigError: the model or the checkpoint cannot be read, or does not fit the settings; on
            all processes that see it.
    """

    def __init__(
        self, settings: TrainerSettings, ranks: Ranks, folder: Path, on_span: OnSpan
    ) -> None:
        cpu.enable()
        self._settings = settings
        self._ranks = ranks
        self._on_span = on_span
        resumed = is_checkpoint(folder)
        self._home = weights_folder(folder) if resumed else folder
        self.architecture = Architecture.read(self._home)
        model = build_model(self.architecture, settings, ranks.device)
        self._parameters = dict(model.named_parameters())
        self.slots = list(slots_of(self.architecture, ranks, list(self._parameters)))
        self._model = DistributedDataParallel(
            config=model.config,
            ddp_config=DistributedDataParallelConfig(
                grad_reduce_in_fp32=True,
                use_distributed_optimizer=settings.distributed_optimizer,
                overlap_grad_reduce=False,
            ),
            module=model,
        )
        self._optimizer = Optimizer(self._model, settings, ranks)
        self._pipeline = Pipeline(self._model, model.config, ranks)
        self.counters = Counters()
        if resumed:
            self.counters = load(folder, ranks, self._optimizer, self._pairs())
        else:
            self._load_weights(folder)

    def train(self, version: int, batch: Batch) -> dict[str, float]:
        """One training step: the paper's section 5.2.

        Args:
            version: of the weights that come out.
            batch: of trajectories.

        Returns:
            Statistics, on rank 0. Means are over generated tokens.

        Raises:
            BackendError: the batch cannot be trained on, or the gradient is no finite number; on
                all processes alike.
        """
        clock = Clock(self._on_span, version)
        self._enter("policy")
        settings = self._settings

        def advantages() -> NDArray[np.float32]:
            return token_advantages(
                batch,
                baseline=settings.baseline,
                normalise_advantages=settings.normalise_advantages,
                divide_by_std=settings.divide_by_std,
            )

        minibatches = self._minibatches(batch, advantages, settings.minibatches)
        clock.lap("overhead")
        if settings.objective == "decoupled":
            everything = [micro for minibatch in minibatches for micro in minibatch]
            clock.lap("proximal", self._pipeline.logprobs(everything))
        stats = self._update(
            minibatches, self._policy_loss, clock, lambda: self._warmed(settings.learning_rate)
        )
        self.counters.version = version
        return self._report(batch, stats, clock) if self._ranks.rank == 0 else {}

    def supervised(
        self, batch: Batch, *, learning_rate: float, optimizer_steps: int = 1
    ) -> dict[str, float]:
        """Learn to give the batch's answers: mean negative log-likelihood of their tokens.

        The optimizer's moments begin anew where training on rewards follows this or comes before.

        Args:
            batch: of examples; its rewards, log-probabilities and versions are not looked at.
            learning_rate: of these steps.
            optimizer_steps: the batch is cut into so many, in its order.

        Returns:
            Statistics, on rank 0.

        Raises:
            BackendError: as `train`.
        """
        clock = Clock(self._on_span, self.counters.version)
        self._enter("supervised")

        def loss(
            micro: MicroBatch, logprobs: Tensor, entropy: Tensor
        ) -> tuple[Tensor, dict[str, Tensor]]:
            ones = torch.ones_like(logprobs, dtype=torch.float32)
            return -logprobs.sum(), {"tokens": ones.sum(), "entropy": entropy.detach().sum()}

        minibatches = self._minibatches(
            batch, lambda: np.zeros(len(batch.tokens), np.float32), optimizer_steps
        )
        clock.lap("overhead")
        stats = self._update(minibatches, loss, clock, lambda: learning_rate)
        return self._report(batch, stats, clock) if self._ranks.rank == 0 else {}

    def export(self, folder: Path) -> None:
        """Write the weights as a Hugging Face folder, as it is served.

        Raises:
            BackendError: on all processes alike; what was there before is untouched.
        """
        clock = Clock(self._on_span, self.counters.version)
        dtype = DTYPES[self._settings.dtype]

        def fill(part: Path) -> str | None:
            error = write_tensors(self._ranks, part, self.slots, self._served, dtype, durable=False)
            if self._ranks.rank == 0 and error is None:
                error = write_config(part, self.architecture, dtype, self._home)
            return error

        write_folder(self._ranks, folder, fill)
        clock.lap("publish")

    def whole_weights(self) -> tuple[Bucket, ...]:
        """All weights under Hugging Face's names, copied, on rank 0."""
        clock = Clock(self._on_span, self.counters.version)
        weights = whole_weights(self._ranks, self.slots, self._served, self._settings.bucket_bytes)
        clock.lap("publish")
        return weights

    def save(self, folder: Path) -> None:
        """Write a checkpoint.

        Raises:
            BackendError: on all processes alike; what was there before is untouched.
        """
        clock = Clock(self._on_span, self.counters.version)
        save(
            folder,
            self._ranks,
            self._optimizer,
            self._pairs(),
            self.counters,
            self.architecture,
            beside=self._home,
        )
        clock.lap("save")

    def logprobs(self, batch: Batch) -> dict[int, list[float]]:
        """Log-probabilities of the batch's answers, by rollout, under the weights as they are.

        Returns:
            On rank 0.
        """
        zeros = np.zeros(len(batch.tokens), np.float32)
        (micros,) = self._minibatches(batch, lambda: zeros, 1)
        self._pipeline.logprobs(micros)
        found: list[list[object]] = []
        if self._ranks.last_stage and self._ranks.tensor == 0:
            for micro in micros:
                assert micro.proximal is not None
                counts = (batch.lengths - batch.prompt_tokens)[list(micro.sequences)].tolist()
                parts = micro.proximal.split(counts)
                ids = batch.rollout_ids[list(micro.sequences)].tolist()
                found += [[i, part.tolist()] for i, part in zip(ids, parts, strict=True)]
        return {i: values for part in self._ranks.gather(found) for i, values in part}

    def _load_weights(self, folder: Path) -> None:
        shapes = all_shapes(self.architecture)
        source: TensorSource = RandomTensors(
            shapes, self._settings.seed, self.architecture.initializer_range
        )
        if TensorFolder.holds_tensors(folder):
            source = TensorFolder(folder, shapes)
        for slot, parameter in self._pairs():
            self._optimizer.put(parameter, "weight", slot.read(source))

    def _pairs(self) -> list[tuple[Slot, Tensor]]:
        return [(slot, self._parameters[slot.parameter]) for slot in self.slots]

    def _served(self, slot: Slot) -> Tensor:
        return self._parameters[slot.parameter].data

    def _enter(self, phase: str) -> None:
        if self.counters.phase != phase:
            self._optimizer.reset()
            self.counters.phase = phase
            self.counters.optimizer_steps = 0

    def _warmed(self, learning_rate: float) -> float:
        """Learning rate of the next optimizer step."""
        warmup = self._settings.warmup_steps
        return learning_rate * min(1.0, (self.counters.optimizer_steps + 1) / max(1, warmup))

    def _minibatches(
        self, batch: Batch, advantages: Callable[[], NDArray[np.float32]], count: int
    ) -> list[list[MicroBatch]]:
        """This rank's micro-batches of each minibatch, packed as the simulator packs them."""
        error, own = None, []
        try:
            most_tokens = self._settings.micro_batch_tokens
            check_batch(batch, vocab=self.architecture.vocab, most_tokens=most_tokens)
            packed = pack(
                batch.lengths.tolist(),
                capacity=most_tokens,
                ranks=self._settings.data_parallel,
                minibatches=count,
                algorithm=algorithm_1,
                balance=longest_processing_time,
            )
            values = advantages()
            own = [
                [
                    micro_batch_of(batch, values, sequences, self._ranks.device)
                    for sequences in minibatch[self._ranks.data]
                ]
                for minibatch in packed
            ]
        except ValueError as exc:
            error = str(exc)
        self._ranks.agree(error)
        return own

    def _policy_loss(
        self, micro: MicroBatch, logprobs: Tensor, entropy: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        settings = self._settings
        total, stats = policy_loss(
            logprobs,
            micro.proximal,
            micro.behaviour,
            micro.advantages,
            torch.ones_like(logprobs, dtype=torch.bool),
            objective=settings.objective,
            clip=settings.clip,
            behaviour_weight_cap=settings.behaviour_weight_cap,
        )
        stats["entropy"] = entropy.detach().sum()
        if settings.entropy_coefficient:
            total = total - settings.entropy_coefficient * entropy.sum()
        return total, stats

    def _update(
        self,
        minibatches: list[list[MicroBatch]],
        loss: Loss,
        clock: Clock,
        learning_rate: Callable[[], float],
    ) -> list[dict[str, float]]:
        """An optimizer step on each minibatch; their statistics, on rank 0."""
        stats = []
        for micros in minibatches:
            self._optimizer.zero_grad()
            told = self._pipeline.gradients(micros, loss)
            clock.lap("minibatch", told)
            rate = learning_rate()
            norm = self._optimizer.step(rate)
            self.counters.optimizer_steps += 1
            clock.lap("optimizer")
            stats.append({**told.stats, "grad_norm": norm, "learning_rate": rate})
        return stats

    def _report(
        self, batch: Batch, stats: list[dict[str, float]], clock: Clock
    ) -> dict[str, float]:
        per_step = ("grad_norm", "learning_rate")
        means = {name: sum(s[name] for s in stats) / len(stats) for name in per_step}
        joined = join_stats(
            {name: value for name, value in s.items() if name not in per_step} for s in stats
        )
        per_token = stats_per_token(joined)
        per_token["answer_tokens"] = per_token.pop("tokens")
        return {
            **per_token,
            **means,
            "reward": float(batch.rewards.mean()),
            "sequences": float(len(batch)),
            "tokens": float(len(batch.tokens)),
            "micro_batches": float(clock.micro_batches["minibatch"]),
            "optimizer_steps": float(len(stats)),
            **{f"seconds_{name}": ns / 1e9 for name, ns in clock.spent_ns.items()},
        }
