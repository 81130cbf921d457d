"""What the sliders change of a configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal, get_args

from areal_sim.plan import Question
from areal_sim.plan.base import config_of
from areal_sim.plan.space import Candidate
from areal_sim.plan.what_if import DISK_RATES
from areal_sim.ui.start import Start

Transport = Literal["disk", "collective"]

TRANSPORTS: tuple[Transport, ...] = get_args(Transport)

SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""How many times as fast weights and checkpoints travel."""

MOST_NODES, NEAR = 24, 4
"""Values of the slider for nodes, more cannot be told apart under a mouse; beside them all that are
so near to the present one."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tweak:
    """Where the sliders stand.

    Attributes:
        scheduler: the schedule.
        training_gpus: GPUs that train; the others generate.
        eta: staleness bound.
        in_flight: rollouts over the cluster at a time, at most.
        nodes: of the cluster. Those that come generate, and those that go did.
        speed: of weights and checkpoints, times what it is.
        transport: how weights travel.
    """

    scheduler: str
    training_gpus: int
    eta: int
    in_flight: int
    nodes: int
    speed: float = 1.0
    transport: Transport = "disk"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What each slider can be set to, ascending; one value: there is nothing to choose."""

    schedulers: tuple[str, ...]
    training_gpus: tuple[int, ...]
    etas: tuple[int, ...]
    in_flights: tuple[int, ...]
    nodes: tuple[int, ...]


def untouched(start: Start, scheduler: str | None = None) -> Tweak:
    """The sliders where nothing is changed, or nothing but the schedule."""
    base = base_of(start, scheduler or start.base.scheduler)
    return Tweak(
        scheduler=base.scheduler,
        training_gpus=base.training_gpus,
        eta=base.eta,
        in_flight=base.max_rollouts_in_flight,
        nodes=start.question.nodes_of(base.gpus)[0],
        transport=start.question.transport,
    )


def base_of(start: Start, scheduler: str) -> Candidate:
    """What the sliders change under a schedule: the base, or the best estimate with it."""
    if scheduler == start.base.scheduler:
        return start.base
    found = (each.candidate for each in start.estimates if each.candidate.scheduler == scheduler)
    return next(found)


def choices(start: Start, scheduler: str) -> Choices:
    """What each slider can be set to under a schedule."""
    base = base_of(start, scheduler)
    every = [each.candidate for each in start.estimates]
    same = [each for each in every if each.scheduler == scheduler]
    bounded = not base.colocated and scheduler not in ("synchronous", "one_step_off")
    return Choices(
        schedulers=tuple(dict.fromkeys([start.base.scheduler, *(x.scheduler for x in every)])),
        training_gpus=(
            (base.training_gpus,)
            if base.colocated
            else _ascending(base.training_gpus, (x.training_gpus for x in same if not x.colocated))
        ),
        etas=_ascending(base.eta, (x.eta for x in same)) if bounded else (base.eta,),
        in_flights=(
            _ascending(base.max_rollouts_in_flight, (x.max_rollouts_in_flight for x in same))
            if bounded
            else (base.max_rollouts_in_flight,)
        ),
        nodes=_nodes(start.question, base),
    )


def _ascending(own: int, others: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted({own, *others}))


def _nodes(question: Question, base: Candidate) -> tuple[int, ...]:
    """From half as many nodes to twice as many; trainer and servers must have room on them."""
    now, per_node = question.nodes_of(base.gpus)
    if per_node < question.gpus_per_node:
        return (now,)
    least = base.server_tensor_parallel + (0 if base.colocated else base.training_gpus)
    rank = base.tensor_parallel * base.pipeline_parallel
    room = max(least, rank if base.colocated else 0)
    every = [n for n in range(max(1, now // 2), 2 * now + 1) if n * per_node >= room]
    step = -(-len(every) // MOST_NODES)
    return tuple(n for n in every if abs(n - now) <= NEAR or (n - now) % step == 0)


def apply(start: Start, tweak: Tweak) -> tuple[Question, Candidate]:
    """The question and the candidate that the sliders make.

    Only what was moved changes. Another number of training GPUs brings the layout that is
    estimated to be the fastest with it.
    """
    question = start.question
    candidate = base_of(start, tweak.scheduler)
    if tweak.training_gpus != candidate.training_gpus and not candidate.colocated:
        candidate = _other_split(start, candidate, tweak)
    most = (tweak.eta + 1) * question.train_batch_rollouts
    candidate = dataclasses.replace(
        candidate, eta=tweak.eta, max_rollouts_in_flight=min(tweak.in_flight, most)
    )
    candidate = _on_nodes(question, candidate, tweak.nodes)
    candidate = _with_room(start, candidate)
    return _faster(question, candidate, tweak), candidate


def _other_split(start: Start, base: Candidate, tweak: Tweak) -> Candidate:
    """The fastest layout with so many training GPUs, as near to the other sliders as there is."""

    def far(candidate: Candidate) -> tuple[int, int]:
        return (
            abs(candidate.eta - tweak.eta),
            abs(candidate.max_rollouts_in_flight - tweak.in_flight),
        )

    found = [
        each
        for each in start.estimates
        if each.candidate.training_gpus == tweak.training_gpus
        and each.candidate.scheduler == base.scheduler
        and not each.candidate.colocated
    ]
    return min(found, key=lambda each: (far(each.candidate), each.step_s)).candidate


def _on_nodes(question: Question, candidate: Candidate, nodes: int) -> Candidate:
    """The same with another number of nodes; the trainer stays as it is, unless it has them all."""
    now, per_node = question.nodes_of(candidate.gpus)
    if nodes == now:
        return candidate
    gpus = nodes * per_node
    if candidate.colocated:
        rank = candidate.tensor_parallel * candidate.pipeline_parallel
        return dataclasses.replace(
            candidate,
            gpus=gpus,
            servers=gpus // candidate.server_tensor_parallel,
            data_parallel=gpus // rank,
        )
    servers = (gpus - candidate.training_gpus) // candidate.server_tensor_parallel
    return dataclasses.replace(candidate, gpus=gpus, servers=servers)


def _with_room(start: Start, candidate: Candidate) -> Candidate:
    """As much server memory as the planner would give so many rollouts on a server."""
    at_once = -(-candidate.max_rollouts_in_flight // candidate.servers)
    alike = [
        each.candidate
        for each in start.estimates
        if each.candidate.server_tensor_parallel == candidate.server_tensor_parallel
        and each.candidate.colocated == candidate.colocated
        and -(-each.candidate.max_rollouts_in_flight // each.candidate.servers) >= at_once
    ]
    share = min(
        (each.static_memory_fraction for each in alike),
        default=candidate.static_memory_fraction,
    )
    share = max(share, candidate.static_memory_fraction)
    return dataclasses.replace(candidate, static_memory_fraction=share)


def _faster(question: Question, candidate: Candidate, tweak: Tweak) -> Question:
    """The question with other weights' ways: what `Question.changes` and `transport` say."""
    question = dataclasses.replace(question, transport=tweak.transport)
    if tweak.speed == 1.0:
        return question
    sim = config_of(question, candidate).sim
    rates: tuple[str, ...] = ("broadcast_bytes_per_s",)
    pause: tuple[str, ...] = ()
    if tweak.transport == "disk":  # checkpoints go the same way
        rates = DISK_RATES
        pause = (f"sim.evaluation.save_s={sim.evaluation.save_s / tweak.speed!r}",)
    faster = (
        f"sim.cost.{rate}={tweak.speed * getattr(sim.cost.factors, rate)!r}" for rate in rates
    )
    return dataclasses.replace(question, changes=(*question.changes, *faster, *pause))
