"""The configuration of one run: all sections, what must hold between them, and what follows."""

# ruff: noqa: RUF009 - these calls make fields, not values

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

from areal_sched.config.options import Section, table
from areal_sched.config.sections import LimitsConfig, SchedulerConfig
from areal_sched.controller import Scheduler
from areal_sched.errors import ConfigError
from areal_sched.limits import Limits
from areal_sim.config.fault_schedule import check_schedule
from areal_sim.config.placement import Placement, place
from areal_sim.config.shared import ClusterConfig, ModelConfig
from areal_sim.config.simulation import PublishedConfig, SimConfig
from areal_sim.config.workload import WorkloadConfig
from areal_sim.hardware import Cluster, ServerLayout, TrainerLayout
from areal_sim.models import ModelShape


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig(Section):
    """One run. The table ``[limits]`` is the field `bounds`, since `limits` makes the `Limits`.

    Raises:
        ConfigError: two sections contradict each other; the message begins with the key and says
            what would work.
    """

    ELSEWHERE: ClassVar[frozenset[str]] = frozenset({"real"})

    cluster: ClusterConfig = table(ClusterConfig)
    model: ModelConfig | None = table(ModelConfig, optional=True)
    workload: WorkloadConfig = table(WorkloadConfig)
    bounds: LimitsConfig = table(LimitsConfig, key="limits")
    scheduler: SchedulerConfig = table(SchedulerConfig)
    sim: SimConfig = table(SimConfig)
    published: PublishedConfig | None = table(PublishedConfig, optional=True)

    def _check(self) -> None:
        self._check_model()
        server, trainer = self.sim.server, self.sim.trainer
        self._check_parallel("sim.server", server.tensor_parallel)
        self._check_parallel("sim.trainer", trainer.tensor_parallel)
        _ = self.placement
        self._check_power()
        self._check_slice()
        check_schedule(
            self.sim.faults.schedule,
            self.servers // self.sim.slice,
            colocated=self.cluster.colocated,
        )
        context = self.workload.max_context_tokens
        if context > trainer.micro_batch_tokens:
            raise ConfigError(
                f"sim.trainer.micro_batch_tokens = {trainer.micro_batch_tokens}: the longest"
                f" trajectory, workload.max_prompt_tokens + max_response_tokens = {context}, must"
                " fit into one micro-batch"
            )
        self.new_scheduler()

    @property
    def measured(self) -> bool:
        """Times and room were measured, so that the model and the kind of GPU do not matter."""
        server = self.sim.server
        known = server.kv_cache_tokens is not None and server.max_running_rollouts is not None
        return known and self.sim.cost.provider == "fitted"

    def _check_model(self) -> None:
        if self.model is None:
            if not self.measured:
                raise ConfigError(
                    'model: missing table; only with sim.cost.provider = "fitted" and'
                    " sim.server.kv_cache_tokens and max_running_rollouts it may be left out"
                )
            return
        model = self.model_shape()
        self.workload.check_context(model)
        stages = self.sim.trainer.pipeline_parallel
        if stages > model.num_layers:
            raise ConfigError(
                f"sim.trainer.pipeline_parallel = {stages}: {model.name} has only"
                f" {model.num_layers} layers"
            )

    @property
    def power(self) -> dict[str, float | None]:
        """Watts and price of one GPU; None is unknown. See `ClusterConfig.power`."""
        # Where all is measured, `cluster.gpu` may be a default that nobody meant.
        return self.cluster.power(gpu_counts=not self.measured)

    def _check_power(self) -> None:
        busy, idle = self.power["busy_watts"], self.power["idle_watts"]
        if busy is None or idle is None or idle <= busy:
            return
        of_gpu = "" if self.cluster.idle_watts is not None else f" (that of {self.cluster.gpu})"
        raise ConfigError(
            f"cluster.idle_watts = {idle!r}{of_gpu}: must be at most the busy_watts of {busy!r}"
        )

    def _check_slice(self) -> None:
        part = self.sim.slice
        wholes = {
            "servers": self.servers,
            "data-parallel ranks": self.data_parallel_ranks,
            "workload.prompts_per_step": self.workload.prompts_per_step,
        }
        most = math.gcd(*wholes.values())
        if part > 1 and most % part:
            found = ", ".join(f"{value} {name}" for name, value in wholes.items())
            raise ConfigError(f"sim.slice = {part}: must divide {found}; {most} would do")

    def _check_parallel(self, where: str, parallel: int) -> None:
        """Tensor parallelism stays within a node, and the model's heads must divide over it."""
        if self.model is None:
            return
        model, per_node = self.model_shape(), self.cluster.gpus_per_node
        if per_node % parallel == 0 and _divides(model, parallel):
            return
        usable = [n for n in range(1, per_node + 1) if per_node % n == 0 and _divides(model, n)]
        raise ConfigError(
            f"{where}.tensor_parallel = {parallel}: must divide the {per_node} GPUs of a node and"
            f" fit the {model.num_heads} attention and {model.num_kv_heads} KV heads of"
            f" {model.name}; would do: {', '.join(map(str, usable))}"
        )

    # ---- what the parts of a run are made from -------------------------------------------------

    def limits(self) -> Limits:
        """The bounds with the batch, B = prompts_per_step * group_size, as schedulers take them.

        Of a slice: one part of both.
        """
        limits, part = self.bounds.limits(self.workload), self.sim.slice
        if part == 1:
            return limits
        return dataclasses.replace(
            limits,
            train_batch_rollouts=limits.train_batch_rollouts // part,
            max_rollouts_in_flight=max(1, limits.max_rollouts_in_flight // part),
        )

    def new_scheduler(self) -> Scheduler:
        """A fresh scheduler."""
        return self.scheduler.new(self.limits())

    def model_shape(self) -> ModelShape:
        """Sizes of the model; there is one unless `measured`."""
        assert self.model is not None
        return self.model.shape()

    def hardware(self) -> Cluster:
        """The cluster as the cost models take it."""
        return self.cluster.hardware()

    def server_layout(self) -> ServerLayout:
        """How one server lies on its GPUs."""
        server = self.sim.server
        return ServerLayout(
            tensor_parallel=server.tensor_parallel,
            static_memory_fraction=server.static_memory_fraction,
        )

    def trainer_layout(self) -> TrainerLayout:
        """How the trainer lies on its GPUs."""
        trainer = self.sim.trainer
        return TrainerLayout(
            tensor_parallel=trainer.tensor_parallel,
            pipeline_parallel=trainer.pipeline_parallel,
            data_parallel=self.data_parallel_ranks,
            micro_batch_tokens=trainer.micro_batch_tokens,
            recompute=trainer.recompute_activations,
        )

    # ---- counts --------------------------------------------------------------------------------

    @property
    def placement(self) -> Placement:
        """Who has which GPUs; see `areal_sim.config.placement`."""
        trainer = self.sim.trainer
        return place(
            self.cluster,
            server_gpus=self.sim.server.tensor_parallel,
            rank_gpus=trainer.tensor_parallel * trainer.pipeline_parallel,
        )

    @property
    def gpus(self) -> int:
        """All GPUs of the cluster, used or not: GPU-hours count these."""
        return self.cluster.gpus

    @property
    def generation_gpus(self) -> int:
        """round(gpus * generation_share / server) * server; colocated: all whole servers."""
        return self.placement.generation_gpus

    @property
    def servers(self) -> int:
        """Inference servers: generation_gpus / sim.server.tensor_parallel."""
        return self.placement.servers

    @property
    def training_gpus(self) -> int:
        """All whole data-parallel ranks that fit on the GPUs not generating; colocated: on all."""
        return self.placement.training_gpus

    @property
    def data_parallel_ranks(self) -> int:
        """training_gpus / (tensor * pipeline parallelism)."""
        return self.placement.data_parallel_ranks

    @property
    def unused_gpus(self) -> int:
        """GPUs that are paid for but neither generate nor train."""
        return self.placement.unused_gpus

    @property
    def train_batch_rollouts(self) -> int:
        """Trajectories of one training step, B in the paper."""
        return self.workload.train_batch_rollouts

    @property
    def published_hours(self) -> float | None:
        """The published time, scaled to this run's number of steps; None if there is none."""
        if self.published is None:
            return None
        steps = self.workload.steps
        return self.published.hours * steps / (self.published.steps or steps)


def _divides(model: ModelShape, parallel: int) -> bool:
    try:
        model.check_tensor_parallel(parallel)
    except ConfigError:
        return False
    return True
