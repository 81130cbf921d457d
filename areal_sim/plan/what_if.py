"""Counterfactuals: what one change would do to a plan, and from them where its bottleneck is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from areal_sim.config import RunConfig
from areal_sim.plan.base import config_of
from areal_sim.plan.question import Question
from areal_sim.plan.search import FIRST, Finding, Search, part_of
from areal_sim.plan.space import Candidate

DISK_RATES = ("disk_write_bytes_per_s", "disk_read_bytes_per_s", "disk_read_total_bytes_per_s")

NOTHING = 0.01
"""A change of less is none: the same run with another seed differs by up to as much."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One counterfactual.

    Attributes:
        key: what kind it is, see `_changes`.
        text: in words.
        candidate: the plan with the change; None where the change is of something else.
        changes: further keys of the configuration.
        step_s: a step with the change.
        relative: step time with it over that without, less 1.
    """

    key: str
    text: str
    candidate: Candidate
    changes: tuple[str, ...] = ()
    step_s: float = 0.0
    relative: float = 0.0


def what_ifs(search: Search, best: Finding) -> list[Change]:
    """Simulate every counterfactual of a plan, paired with the plan on the same slice.

    Returns:
        The changes that could be simulated, the greatest gain first.
    """
    question, plan = search.question, best.candidate
    wanted = list(_changes(question, plan))
    base = config_of(question, plan)
    configs: dict[str, RunConfig] = {}
    pairs: dict[str, str] = {}
    for change in wanted:
        whole = config_of(question, change.candidate, change.changes)
        # A slice of another size is off by a per cent or two, so both are cut alike.
        part = math.gcd(part_of(whole, FIRST.trajectories), part_of(base, FIRST.trajectories))
        run = search.run_changes(change.candidate, whole, FIRST, part)
        configs[change.key] = config_of(question, change.candidate, (*change.changes, *run))
        pairs[change.key] = f"plan {part} {FIRST.steps_of(whole)}"
        steps = (f"workload.steps={FIRST.steps_of(whole)}",)
        run = search.run_changes(plan, base, FIRST, part)
        configs[pairs[change.key]] = config_of(question, plan, (*run, *steps))
    results = search.sweep(configs, "what if")
    found = []
    for change in wanted:
        step_s = search.steady_s(configs[change.key], results[change.key])
        without = search.steady_s(configs[pairs[change.key]], results[pairs[change.key]])
        found.append(dataclasses.replace(change, step_s=step_s, relative=step_s / without - 1))
    return sorted(found, key=lambda change: change.relative)


def _changes(question: Question, plan: Candidate) -> Iterator[Change]:
    """What is tried: more of each side, other staleness, faster weights, longer answers."""
    per_node = min(question.gpus_per_node, plan.gpus)
    if not plan.colocated:
        yield from _more_gpus(question, plan, per_node)
    if plan.scheduler == "areal":
        yield from _other_etas(question, plan)
        doubled = dataclasses.replace(plan, max_rollouts_in_flight=2 * plan.max_rollouts_in_flight)
        if doubled.max_rollouts_in_flight <= (plan.eta + 1) * question.train_batch_rollouts:
            text = f"{doubled.max_rollouts_in_flight} rollouts in flight"
            yield Change(key="in flight", text=text, candidate=doubled)
    probe = config_of(question, plan).sim
    factors = probe.cost.factors
    rates: tuple[str, ...] = (
        "disk_write_bytes_per_s",
        "disk_read_bytes_per_s",
        "disk_read_total_bytes_per_s",
    )
    if probe.weights.transport == "collective":
        rates = ("broadcast_bytes_per_s",)
    faster = tuple(f"sim.cost.{rate}={2 * getattr(factors, rate)!r}" for rate in rates)
    if probe.weights.transport == "disk":  # a checkpoint goes the same way
        faster += (f"sim.evaluation.save_s={probe.evaluation.save_s / 2!r}",)
    text = "twice the speed of weights and checkpoints"
    yield Change(key="weights", text=text, candidate=plan, changes=faster)
    scale = config_of(question, plan).workload.length_scale
    longer = (f"workload.length_scale={1.1 * scale!r}",)
    yield Change(key="length", text="answers 10 % longer", candidate=plan, changes=longer)


def _more_gpus(question: Question, plan: Candidate, per_node: int) -> Iterator[Change]:
    """One node more for either side."""
    if plan.gpus % per_node or per_node < question.gpus_per_node:
        return
    servers = per_node // plan.server_tensor_parallel
    yield Change(
        key="generation",
        text=f"{per_node} more generation GPUs",
        candidate=dataclasses.replace(
            plan, gpus=plan.gpus + per_node, servers=plan.servers + servers
        ),
    )
    rank = plan.tensor_parallel * plan.pipeline_parallel
    ranks = -(-per_node // rank)
    more = -(-ranks * rank // per_node) * per_node
    yield Change(
        key="training",
        text=f"{more} more training GPUs",
        candidate=dataclasses.replace(
            plan, gpus=plan.gpus + more, data_parallel=plan.data_parallel + more // rank
        ),
    )


def _other_etas(question: Question, plan: Candidate) -> Iterator[Change]:
    """The staleness bound halved and doubled."""
    batch = question.train_batch_rollouts
    for eta in sorted({plan.eta // 2, 2 * plan.eta} - {plan.eta}):
        in_flight = min(plan.max_rollouts_in_flight, (eta + 1) * batch)
        yield Change(
            key=f"eta {eta}",
            text=f"eta {plan.eta} -> {eta}",
            candidate=dataclasses.replace(plan, eta=eta, max_rollouts_in_flight=in_flight),
        )


def bottleneck(best: Finding, changes: list[Change]) -> str:
    """What a plan waits for, in a sentence."""
    idle = best.summary["idle_share"]
    gains = {change.key: -change.relative for change in changes}
    if best.candidate.colocated:
        shares = best.summary["gpu_time_share"]
        top = max((key for key in shares), key=lambda key: shares[key])
        return f"generation and training take turns; most GPU time goes to: {top}"
    generation, training = gains.get("generation", 0.0), gains.get("training", 0.0)
    wait = (
        f"servers are idle {idle['generation']:.0%} of the time, the trainer {idle['training']:.0%}"
    )
    if max(generation, training) < NOTHING / 2 and abs(generation - training) < NOTHING:
        if idle["training"] > 2 * idle["generation"]:
            return f"generation, though one node more changes little: {wait}"
        return f"neither side alone: {wait}"
    side = "generation" if generation >= training else "training"
    return f"{side}: {wait}"
