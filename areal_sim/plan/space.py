"""The space a planner searches: every layout, split and schedule that fits in memory.

A candidate is whole: what it says and the question make a configuration. Three keys are not
searched but follow, since the model has an exact answer: the micro-batch budget is the one with the
shortest training step, the servers' memory share the least that does not limit them, and all GPUs
that do not train generate.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

from areal_sched.config.model_shape import ModelShape
from areal_sched.errors import ConfigError
from areal_sim.hardware import Gpu, ServerLayout, TrainerLayout, gpu
from areal_sim.memory import DoesNotFit, ServerMemory, server_memory, trainer_memory
from areal_sim.plan.question import Question

MEMORY_SHARES = (0.7, 0.8, 0.9)
"""Static memory fractions of a server to choose from: 0.8 and 0.7 are the paper's, 0.9 is about
SGLang's own default on a large GPU."""

MICRO_BATCH_TOKENS = (32_768, 49_152, 65_536)
"""Micro-batch budgets to choose from, beside the longest trajectory; the first is the paper's."""

IN_FLIGHT_BATCHES = (0.5, 1, 2, 4)
"""Rollouts in flight to choose from, in training batches; 1 is the paper's."""

MOST_PIPELINE = 16
"""Pipeline stages beyond which nobody goes for dense models up to 32B."""

MINIBATCHES = 4
"""The paper's; fewer where the batch does not divide."""

KV_RESERVE_TOKENS = 1024
"""Default of ``sim.server.kv_reserve_tokens_per_rollout``."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One answer that could be given.

    Attributes:
        gpu, gpus: the cluster.
        scheduler: a built-in one.
        colocated: generation and training take turns on all GPUs.
        server_tensor_parallel, servers, static_memory_fraction: generation.
        tensor_parallel, pipeline_parallel, data_parallel, micro_batch_tokens, minibatches:
            training.
        eta: staleness bound.
        max_rollouts_in_flight: over the cluster.
    """

    gpu: str
    gpus: int
    scheduler: str
    colocated: bool
    server_tensor_parallel: int
    servers: int
    static_memory_fraction: float
    tensor_parallel: int
    pipeline_parallel: int
    data_parallel: int
    micro_batch_tokens: int
    minibatches: int
    eta: int
    max_rollouts_in_flight: int

    @property
    def generation_gpus(self) -> int:
        """GPUs of all servers."""
        return self.servers * self.server_tensor_parallel

    @property
    def training_gpus(self) -> int:
        """GPUs of the trainer."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel

    @property
    def generation_share(self) -> float:
        """Share of the GPUs that generate."""
        return self.generation_gpus / self.gpus

    @property
    def layout(self) -> tuple[int, int, int, int]:
        """Parallelism of servers and trainer, and the number of ranks."""
        return (
            self.server_tensor_parallel,
            self.tensor_parallel,
            self.pipeline_parallel,
            self.data_parallel,
        )

    def __str__(self) -> str:
        where = (
            "colocated" if self.colocated else f"{self.servers} x TP {self.server_tensor_parallel}"
        )
        trainer = f"TP {self.tensor_parallel}, PP {self.pipeline_parallel}, DP {self.data_parallel}"
        return (
            f"{self.scheduler} on {self.gpus} {self.gpu}: {where} | {trainer}, eta {self.eta},"
            f" {self.max_rollouts_in_flight} in flight"
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainerChoice:
    """A trainer that fits: micro-batch budgets ascending."""

    tensor_parallel: int
    pipeline_parallel: int
    data_parallel: int
    budgets: tuple[int, ...]

    @property
    def gpus(self) -> int:
        """GPUs of the whole trainer."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServerChoice:
    """A server that fits: its room at each memory share, ascending."""

    tensor_parallel: int
    rooms: tuple[tuple[float, ServerMemory], ...]


class Space:
    """What fits of a question on one number of GPUs of one kind.

    Args:
        question: what is asked.
        gpu_name: the kind of GPU.
        gpus: how many.

    Attributes:
        refused_servers, refused_trainers: why layouts do not fit, the nearest to fitting first.
    """

    def __init__(self, question: Question, gpu_name: str, gpus: int) -> None:
        self.question = question
        self.gpu: Gpu = gpu(gpu_name)
        self.gpus = gpus
        self.nodes, self.per_node = question.nodes_of(gpus)
        self.shape: ModelShape = question.shape()
        self.refused_servers: list[DoesNotFit] = []
        self.refused_trainers: list[DoesNotFit] = []
        batch = question.train_batch_rollouts
        self.minibatches = next(n for n in range(min(MINIBATCHES, batch), 0, -1) if batch % n == 0)

    @property
    def context_tokens(self) -> int:
        """The longest rollout."""
        return self.question.max_prompt_tokens + self.question.max_response_tokens

    @functools.cached_property
    def servers(self) -> tuple[ServerChoice, ...]:
        """Servers that fit, by tensor parallelism."""
        found = []
        for parallel in _parallelisms(self.shape, self.per_node):
            rooms = []
            for share in MEMORY_SHARES:
                layout = ServerLayout(tensor_parallel=parallel, static_memory_fraction=share)
                context = self.context_tokens + KV_RESERVE_TOKENS
                try:
                    memory = server_memory(self.gpu, self.shape, layout, context_tokens=context)
                except DoesNotFit as error:
                    refused = error
                    continue
                rooms.append((share, memory))
            if not rooms:
                self.refused_servers.append(refused)
            else:
                found.append(ServerChoice(tensor_parallel=parallel, rooms=tuple(rooms)))
        self.refused_servers.sort(key=lambda error: error.missing_bytes)
        return tuple(found)

    def trainers(self, *, colocated: bool = False) -> tuple[TrainerChoice, ...]:
        """Trainers that fit; colocated on all GPUs, else with what the real trainer can divide."""
        return self._colocated_trainers if colocated else self._separate_trainers

    @functools.cached_property
    def _separate_trainers(self) -> tuple[TrainerChoice, ...]:
        found = []
        for tensor, pipeline in self._rank_shapes():
            most = (self.gpus - 1) // (tensor * pipeline)
            for ranks in range(1, most + 1):
                if self.question.train_batch_rollouts % (self.minibatches * ranks) == 0:
                    found += self._trainer(tensor, pipeline, ranks)
        self.refused_trainers.sort(key=lambda error: error.missing_bytes)
        return tuple(found)

    @functools.cached_property
    def _colocated_trainers(self) -> tuple[TrainerChoice, ...]:
        found = []
        for tensor, pipeline in self._rank_shapes():
            ranks = self.gpus // (tensor * pipeline)
            if 1 <= ranks <= self.question.train_batch_rollouts // self.minibatches:
                found += self._trainer(tensor, pipeline, ranks)
        return tuple(found)

    def _rank_shapes(self) -> Iterator[tuple[int, int]]:
        """Tensor and pipeline parallelism that the real trainer can cut the model into."""
        for tensor in _parallelisms(self.shape, self.per_node):
            if self.shape.num_kv_heads % tensor == 0:
                for pipeline in range(1, min(MOST_PIPELINE, self.shape.num_layers) + 1):
                    if self.shape.num_layers % pipeline == 0 and tensor * pipeline <= self.gpus:
                        yield tensor, pipeline

    def _trainer(self, tensor: int, pipeline: int, ranks: int) -> list[TrainerChoice]:
        budgets: list[int] = []
        least = -(-self.context_tokens // 1024) * 1024
        for tokens in sorted({least, *(x for x in MICRO_BATCH_TOKENS if x >= least)}):
            layout = TrainerLayout(
                tensor_parallel=tensor,
                pipeline_parallel=pipeline,
                data_parallel=ranks,
                micro_batch_tokens=tokens,
            )
            try:
                trainer_memory(self.gpu, self.shape, layout)
            except DoesNotFit as error:
                if not budgets:
                    self.refused_trainers.append(error)
                break
            budgets.append(tokens)
        if not budgets:
            return []
        return [
            TrainerChoice(
                tensor_parallel=tensor,
                pipeline_parallel=pipeline,
                data_parallel=ranks,
                budgets=tuple(budgets),
            )
        ]

    @property
    def refused(self) -> tuple[str, ...]:
        """Why layouts do not fit, each once, the nearest to fitting first."""
        errors = sorted(
            [*self.refused_servers, *self.refused_trainers], key=lambda error: error.missing_bytes
        )
        return tuple(dict.fromkeys(str(error) for error in errors))

    @property
    def least_gpus(self) -> int | None:
        """GPUs of the smallest server and the smallest trainer together; None: one fits nowhere."""
        if not self.servers or not self.trainers():
            return None
        server = min(server.tensor_parallel for server in self.servers)
        return server + min(trainer.gpus for trainer in self.trainers())

    @property
    def in_turn(self) -> bool:
        """Whether a server and a trainer fit on all GPUs in turn."""
        server = min((server.tensor_parallel for server in self.servers), default=self.gpus + 1)
        return server <= self.gpus and bool(self.trainers(colocated=True))

    def schedules(self) -> Iterator[tuple[str, int, int]]:
        """(scheduler, eta, rollouts in flight) for separate servers and trainer."""
        question, batch = self.question, self.question.train_batch_rollouts
        for scheduler in question.schedulers:
            if scheduler == "synchronous":
                continue
            if scheduler == "one_step_off":
                if question.etas()[-1] >= 1:
                    yield scheduler, 1, 2 * batch
                continue
            for eta in question.etas():
                for batches in IN_FLIGHT_BATCHES:
                    # More than may be admitted at all is the same as that.
                    if batches <= eta + 1:
                        yield scheduler, eta, max(1, int(batch * batches))


def _parallelisms(shape: ModelShape, per_node: int) -> list[int]:
    """Tensor parallelism within a node that the model's heads and MLP divide over."""
    found = []
    for parallel in range(1, per_node + 1):
        if per_node % parallel or shape.intermediate_size % parallel:
            continue
        try:
            shape.check_tensor_parallel(parallel)
        except ConfigError:
            continue
        found.append(parallel)
    return found
