"""A closed form of the simulator's steady state: rough, and a thousand times as fast.

It ranks candidates so that few need to be simulated; no answer is taken from it. Generation is the
decode of full servers with the mean context, plus prefill and what an update of the weights stops;
training is the simulator's own arithmetic on one packed batch; asynchronous schedules take the
longer of the two, those that wait for a batch also its longest answers.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator

import numpy as np

from areal_sched.packing import PackedStep, algorithm_1, longest_processing_time, pack
from areal_sim.build import source_of
from areal_sim.config import WorkloadConfig
from areal_sim.costs import Roofline
from areal_sim.hardware import Cluster, ServerLayout, TrainerLayout
from areal_sim.memory import ServerMemory, server_memory
from areal_sim.plan import base
from areal_sim.plan.generation import Generation, Lengths, longer_of
from areal_sim.plan.question import Question
from areal_sim.plan.space import KV_RESERVE_TOKENS, Candidate, ServerChoice, Space, TrainerChoice
from areal_sim.trainer import phases
from areal_sim.worth import S_PER_HOUR, Worth

WAITING_BATCHES = 0.5
"""Finished trajectories that wait for the rest of their batch, in batches: none just after a step
begins, one just before, half on average."""

ROUNDS = 4
"""Of the fixed point between a step's length and what is in flight; it settles in three."""

GROUPS_FOR_MEAN = 8192
"""Prompts whose answers give the mean length: its standard error is then below 1 %."""

WORTH_A_SPLIT = 0.03
"""A trainer that is cut more finely must be faster by this share to be worth a look."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a candidate would come to.

    Attributes:
        candidate: of which.
        step_s: a training step.
        generation_s: what its servers need for a batch.
        training_s: what its trainer needs for one.
        saved_s: what checkpoints take of a step, on average.
        lag: mean versions between a trajectory's start and its use.
    """

    candidate: Candidate
    step_s: float
    generation_s: float
    training_s: float
    saved_s: float
    lag: float


class Estimator:
    """Estimates every candidate of some spaces for one question.

    Args:
        question: what is asked.

    Raises:
        ConfigError: the workload cannot be read.
    """

    def __init__(self, question: Question) -> None:
        self.question = question
        self._config = base.probe(question)
        self._trained: dict[tuple[str, int, int, int, int], float] = {}
        self._means: dict[WorkloadConfig, float] = {}
        self._powers: dict[str, dict[str, float]] = {}
        self._packed: dict[tuple[int, int], PackedStep] = {}

    @functools.cached_property
    def lengths(self) -> Lengths:
        """One batch of the workload, from its first groups."""
        question = self.question
        source = source_of(self._config.workload, question.seed)
        batch = source.groups(
            0, question.prompts_per_step, group_size=question.group_size, step=0.0
        )
        answers = batch.response_tokens.reshape(-1)
        return Lengths.of(np.repeat(batch.prompt_tokens, question.group_size), answers)

    def mean_tokens(self, workload: WorkloadConfig) -> float:
        """Of an answer, over more groups than a step has."""
        if workload not in self._means:
            source = source_of(workload, self.question.seed)
            group = self.question.group_size
            drawn = source.groups(0, GROUPS_FOR_MEAN, group_size=group, step=0.0)
            self._means[workload] = float(drawn.response_tokens.mean())
        return self._means[workload]

    def all(self, space: Space) -> Iterator[Estimate]:
        """Every candidate of a space, estimated."""
        for trainer in self._worthwhile(space):
            for server in space.servers:
                servers = (space.gpus - trainer.gpus) // server.tensor_parallel
                spare = space.gpus - trainer.gpus - servers * server.tensor_parallel
                # With one more rank on what is left over, the simulator would take it.
                if servers < 1 or spare >= trainer.tensor_parallel * trainer.pipeline_parallel:
                    continue
                for scheduler, eta, in_flight in space.schedules():
                    yield self._separate(space, trainer, server, servers, scheduler, eta, in_flight)
        if "synchronous" in self.question.schedulers:
            yield from self.synchronous(space)

    def of(self, space: Space, candidate: Candidate) -> Estimate:
        """One candidate, with its own layout, micro-batch budget and memory share."""
        c = candidate
        trainer = TrainerChoice(
            tensor_parallel=c.tensor_parallel,
            pipeline_parallel=c.pipeline_parallel,
            data_parallel=c.data_parallel,
            budgets=(c.micro_batch_tokens,),
        )
        layout = ServerLayout(
            tensor_parallel=c.server_tensor_parallel,
            static_memory_fraction=c.static_memory_fraction,
        )
        room = server_memory(space.gpu, space.shape, layout)
        server = ServerChoice(
            tensor_parallel=c.server_tensor_parallel, rooms=((c.static_memory_fraction, room),)
        )
        if c.colocated:
            return self._colocated(space, trainer, server, c.servers)
        schedule = (c.scheduler, c.eta, c.max_rollouts_in_flight)
        return self._separate(space, trainer, server, c.servers, *schedule)

    def worth(self, estimate: Estimate) -> Worth:
        """What all steps of an estimate come to."""
        candidate = estimate.candidate
        hours = self.question.steps * estimate.step_s / S_PER_HOUR
        power = self._power(candidate.gpu)
        generating = min(1.0, estimate.generation_s / estimate.step_s)
        training = min(1.0, estimate.training_s / estimate.step_s)
        busy = candidate.generation_gpus * generating + candidate.training_gpus * training
        watts = candidate.gpus * (power["idle_watts"] + power["host_watts_per_gpu"])
        watts += busy * (power["busy_watts"] - power["idle_watts"])
        return Worth(
            hours=hours,
            gpu_hours=candidate.gpus * hours,
            cost_usd=candidate.gpus * hours * power["usd_per_gpu_hour"],
            energy_kwh=watts * power["power_usage_effectiveness"] * hours / 1000,
        )

    def _power(self, gpu: str) -> dict[str, float]:
        """Watts and price of a kind of GPU, as changed."""
        if gpu not in self._powers:
            cluster = self._config.cluster
            if gpu != cluster.gpu:  # a price of the first kind is not of this one
                cluster = dataclasses.replace(cluster, gpu=gpu, usd_per_gpu_hour=None)
            power = cluster.power()
            self._powers[gpu] = {name: value or 0.0 for name, value in power.items()}
            if gpu in (prices := dict(self.question.prices)):
                self._powers[gpu]["usd_per_gpu_hour"] = prices[gpu]
        return self._powers[gpu]

    def synchronous(self, space: Space) -> Iterator[Estimate]:
        """Every colocated layout."""
        for trainer in space.trainers(colocated=True):
            for server in space.servers:
                if servers := space.gpus // server.tensor_parallel:
                    yield self._colocated(space, trainer, server, servers)

    def _worthwhile(self, space: Space) -> list[TrainerChoice]:
        """Of trainers with equally many GPUs those that no simpler one is as fast as.

        The model of training has communication within a layer in its efficiency, so that tensor
        parallelism looks cheaper than it is; hence simpler is less of that, then fewer stages.
        """
        fastest: dict[int, float] = {}
        found = []
        for trainer in sorted(
            space.trainers(), key=lambda x: (x.gpus, x.tensor_parallel, x.pipeline_parallel)
        ):
            seconds = self._best_budget(space, trainer)[1]
            if seconds < fastest.get(trainer.gpus, math.inf) * (1 - WORTH_A_SPLIT):
                fastest[trainer.gpus] = seconds
                found.append(trainer)
        return found

    # ---- the two placements ----------------------------------------------------------------------

    def _separate(
        self,
        space: Space,
        trainer: TrainerChoice,
        server: ServerChoice,
        servers: int,
        scheduler: str,
        eta: int,
        in_flight: int,
    ) -> Estimate:
        batch = self.question.train_batch_rollouts
        at_once = -(-in_flight // servers)
        share, room = self._room(server, at_once)
        costs = self._costs(space, trainer, server, servers)
        tokens, training_s = self._best_budget(space, trainer)
        server_s = Generation(costs.server(), self.lengths)
        load_s, publish_s = costs.weight_load_s(), costs.weight_publish_s()
        busy_s = training_s + publish_s
        each = batch / servers
        if scheduler == "one_step_off":
            lag = 1.0
            generation_s = server_s.drain_s(self._running(each, room), each) + load_s
            saved_s = self.saved_s(longer_of(generation_s, busy_s))
            step_s = longer_of(generation_s, busy_s + saved_s)
        elif eta == 0:
            lag = 0.0
            running = self._running(min(each, in_flight / servers), room)
            generation_s = server_s.drain_s(running, each) + load_s
            saved_s = self.saved_s(generation_s + busy_s)
            step_s = generation_s + busy_s + saved_s
        else:
            step_s = busy_s
            for _ in range(ROUNDS):
                # Of the (eta + 1) B admitted, some are being trained and some wait for the batch.
                most = batch * (eta + 1 - WAITING_BATCHES - min(1.0, busy_s / step_s))
                flying = min(in_flight, most)
                running = self._running(flying / servers, room)
                generation_s = server_s.stream_s(running, each) + load_s + server_s.again_s(running)
                saved_s = self.saved_s(longer_of(generation_s, busy_s))
                if scheduler == "areal":  # servers wait for what the trainer does after a step
                    generation_s += saved_s
                step_s = longer_of(generation_s, busy_s + saved_s)
            lag = flying / batch
        return Estimate(
            candidate=Candidate(
                gpu=space.gpu.name,
                gpus=space.gpus,
                scheduler=scheduler,
                colocated=False,
                server_tensor_parallel=server.tensor_parallel,
                servers=servers,
                static_memory_fraction=share,
                tensor_parallel=trainer.tensor_parallel,
                pipeline_parallel=trainer.pipeline_parallel,
                data_parallel=trainer.data_parallel,
                micro_batch_tokens=tokens,
                minibatches=space.minibatches,
                eta=eta,
                max_rollouts_in_flight=in_flight,
            ),
            step_s=step_s,
            generation_s=generation_s,
            training_s=busy_s,
            saved_s=saved_s,
            lag=lag,
        )

    def _colocated(
        self, space: Space, trainer: TrainerChoice, server: ServerChoice, servers: int
    ) -> Estimate:
        batch = self.question.train_batch_rollouts
        costs = self._costs(space, trainer, server, servers)
        share, room = self._room(server, -(-batch // servers))
        tokens, training_s = self._best_budget(space, trainer)
        each = batch / servers
        server_s = Generation(costs.server(), self.lengths)
        generation_s = server_s.drain_s(self._running(each, room), each)
        busy_s = training_s + costs.weight_publish_s() + costs.weight_load_s()
        step_s = generation_s + busy_s + costs.switch_s("train") + costs.switch_s("generate")
        saved_s = self.saved_s(step_s)
        step_s += saved_s
        return Estimate(
            candidate=Candidate(
                gpu=space.gpu.name,
                gpus=space.gpus,
                scheduler="synchronous",
                colocated=True,
                server_tensor_parallel=server.tensor_parallel,
                servers=servers,
                static_memory_fraction=share,
                tensor_parallel=trainer.tensor_parallel,
                pipeline_parallel=trainer.pipeline_parallel,
                data_parallel=trainer.data_parallel,
                micro_batch_tokens=tokens,
                minibatches=space.minibatches,
                eta=0,
                max_rollouts_in_flight=batch,
            ),
            step_s=step_s,
            generation_s=generation_s,
            training_s=busy_s,
            saved_s=saved_s,
            lag=0.0,
        )

    # ---- parts -----------------------------------------------------------------------------------

    def saved_s(self, bare_s: float) -> float:
        """What checkpoints take of a step on average, if it takes so long without them.

        The trainer saves after the first step that ends late enough after the last checkpoint.
        """
        pause = self._config.sim.evaluation
        return pause.save_s / max(1, math.ceil(pause.every_s / bare_s))

    def _costs(
        self, space: Space, trainer: TrainerChoice, server: ServerChoice, servers: int
    ) -> Roofline:
        return Roofline(
            cluster=self._cluster(space),
            model=space.shape,
            server_layout=ServerLayout(tensor_parallel=server.tensor_parallel),
            trainer_layout=TrainerLayout(
                tensor_parallel=trainer.tensor_parallel,
                pipeline_parallel=trainer.pipeline_parallel,
                data_parallel=trainer.data_parallel,
            ),
            servers=servers,
            weight_transfer=self._config.sim.weights.transport,
            factors=self._config.sim.cost.factors,
        )

    def _cluster(self, space: Space) -> Cluster:
        return Cluster(
            gpu=space.gpu,
            nodes=space.nodes,
            gpus_per_node=space.per_node,
            network_bytes_per_s_per_node=self._config.cluster.network_bytes_per_s_per_node,
        )

    def _room(self, server: ServerChoice, at_once: int) -> tuple[float, ServerMemory]:
        """The least memory share that does not limit so many rollouts, else the largest."""
        for share, memory in server.rooms:
            if self._running(at_once, memory) >= at_once:
                return share, memory
        return server.rooms[-1]

    def _running(self, at_once: float, room: ServerMemory) -> float:
        """Rollouts that run together on a server."""
        each = self.lengths.context + KV_RESERVE_TOKENS
        return max(1.0, min(at_once, room.max_running_rollouts, room.kv_cache_tokens / each))

    def _best_budget(self, space: Space, trainer: TrainerChoice) -> tuple[int, float]:
        """The micro-batch budget with the shortest step, and seconds of that."""
        times = [(self._training_s(space, trainer, x), x) for x in trainer.budgets]
        seconds, tokens = min(times)
        return tokens, seconds

    def _training_s(self, space: Space, trainer: TrainerChoice, budget: int) -> float:
        tensor, pipeline = trainer.tensor_parallel, trainer.pipeline_parallel
        key = (space.gpu.name, tensor, pipeline, trainer.data_parallel, budget)
        if key not in self._trained:
            layout = TrainerLayout(
                tensor_parallel=tensor,
                pipeline_parallel=pipeline,
                data_parallel=trainer.data_parallel,
                micro_batch_tokens=budget,
            )
            cost = Roofline(
                cluster=self._cluster(space),
                model=space.shape,
                server_layout=ServerLayout(),
                trainer_layout=layout,
                factors=self._config.sim.cost.factors,
            ).trainer()
            # One minibatch stands for all: they are of equal size.
            sizes = self._sizes[:: space.minibatches]
            packed = self._pack(budget, trainer.data_parallel, sizes)
            found = phases(cost, packed, sizes)
            seconds = sum(phase.seconds for phase in found) - cost.step_overhead_s
            self._trained[key] = cost.step_overhead_s + space.minibatches * seconds
        return self._trained[key]

    @functools.cached_property
    def _sizes(self) -> list[int]:
        return list(map(int, self.lengths.prompts + self.lengths.answers))

    def _pack(self, budget: int, ranks: int, sizes: list[int]) -> PackedStep:
        key = (budget, ranks)
        if key not in self._packed:
            self._packed[key] = pack(
                sizes,
                capacity=budget,
                ranks=ranks,
                minibatches=1,
                algorithm=algorithm_1,
                balance=longest_processing_time,
            )
        return self._packed[key]
