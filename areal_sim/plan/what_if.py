"""Counterfactuals: what one change would do to a plan, and from them where its bottleneck is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from areal_sim.config import RunConfig
from areal_sim.plan.base import config_of
from areal_sim.plan.finding import Finding
from areal_sim.plan.question import Question
from areal_sim.plan.rounds import FIRST, part_of
from areal_sim.plan.search import Search
from areal_sim.plan.space import Candidate

DISK_RATES = ("disk_write_bytes_per_s", "disk_read_bytes_per_s", "disk_read_total_bytes_per_s")

MUCH = 0.05
"""What another staleness bound must save to be called the bottleneck."""

NOTHING = 0.01
"""A change of less is none: the same run with another seed differs by up to as much."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One counterfactual.

    Attributes:
        key: what kind it is, see `_changes`.
        text: in words.
        candidate: the plan with the change.
        changes: further keys of the configuration.
        more_gpus: that are paid for with it.
        step_s: a step with the change.
        without_s: a step of the plan, simulated on the same slice and as long.
    """

    key: str
    text: str
    candidate: Candidate
    changes: tuple[str, ...] = ()
    more_gpus: int = 0
    step_s: float = 1.0
    without_s: float = 1.0

    @property
    def relative(self) -> float:
        """Step time with the change over that without, less 1."""
        return self.step_s / self.without_s - 1


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
        run = search.run_of(change.candidate, whole, FIRST, part, change.changes)
        configs[change.key] = run.config
        steps = run.config.workload.steps
        pairs[change.key] = f"plan {part} {steps}"
        alike = dataclasses.replace(FIRST, steps=steps, steps_per_batch=0)
        configs[pairs[change.key]] = search.run_of(plan, base, alike, part).config
    results = search.sweep(configs, "what if")
    found = []
    for change in wanted:
        step_s, without_s = (
            search.steady_s(configs[key], results[key]) for key in (change.key, pairs[change.key])
        )
        found.append(dataclasses.replace(change, step_s=step_s, without_s=without_s))
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
    """One node more for either side, or as many as leave a slice that is as small.

    Of the trainer it is speed: ranks come whole, and another number of them cuts other slices.
    """
    if plan.gpus % per_node or per_node < question.gpus_per_node:
        return
    part = part_of(config_of(question, plan), FIRST.trajectories)
    servers = per_node // plan.server_tensor_parallel
    nodes = part // math.gcd(part, servers)
    yield Change(
        key="generation",
        text=f"{nodes * per_node} more generation GPUs",
        candidate=dataclasses.replace(
            plan, gpus=plan.gpus + nodes * per_node, servers=plan.servers + nodes * servers
        ),
        more_gpus=nodes * per_node,
    )
    factors = config_of(question, plan).sim.cost.factors
    faster = 1 + per_node / plan.training_gpus
    rates = ("training_efficiency", "forward_efficiency")
    yield Change(
        key="training",
        text=f"{per_node} more training GPUs",
        candidate=plan,
        changes=tuple(f"sim.cost.{x}={min(1.0, faster * getattr(factors, x))!r}" for x in rates),
        more_gpus=per_node,
    )


def _other_etas(question: Question, plan: Candidate) -> Iterator[Change]:
    """The staleness bound halved and doubled."""
    batch = question.train_batch_rollouts
    for eta in sorted({plan.eta // 2, max(1, 2 * plan.eta)} - {plan.eta}):
        in_flight = min(plan.max_rollouts_in_flight, (eta + 1) * batch)
        yield Change(
            key=f"eta {eta}",
            text=f"eta {plan.eta} -> {eta}",
            candidate=dataclasses.replace(plan, eta=eta, max_rollouts_in_flight=in_flight),
        )


def bottleneck(best: Finding, changes: list[Change]) -> str:
    """What a plan waits for, in a sentence: by what helps, else by who is idle."""
    idle = best.summary["idle_share"]
    if best.candidate.colocated:
        return "generation and training take turns, and each waits for the other"
    gains = {change.key: (-change.relative, change.text) for change in changes}
    sides = {side: gains[side] for side in ("generation", "training") if side in gains}
    wait = f"servers are idle {idle['generation']:.0%} of the time, the trainer"
    wait += f" {idle['training']:.0%}"
    older = max(
        (gains[key] for key in gains if key.startswith("eta ")), default=(0.0, "no other eta")
    )
    best_side = max(sides, key=lambda side: sides[side][0], default=None)
    gain = sides[best_side][0] if best_side is not None else 0.0
    if older[0] > max(gain, MUCH):
        return f"the staleness bound: {older[1]} would save {older[0]:.0%}; {wait}"
    if best_side is not None and gain >= NOTHING:
        evidence = " and ".join(
            f"{text} {_effect(saved)}" for saved, text in sorted(sides.values(), reverse=True)
        )
        return f"{best_side}: {evidence}; {wait}"
    side = "generation" if idle["training"] > idle["generation"] else "training"
    weights = gains.get("weights", (0.0, ""))
    if weights[0] >= NOTHING:
        return f"weights and checkpoints: {weights[1]} would save {weights[0]:.0%}; {wait}"
    return f"{side}, by who is idle: {wait}"


def _effect(saved: float) -> str:
    return f"would save {saved:.1%}" if saved >= NOTHING else "would save nothing"
