"""Where the what-ifs begin: the plan, or before there is one the best estimate."""

from __future__ import annotations

import dataclasses

from areal_sim.plan import Plan, Question
from areal_sim.plan.estimate import Estimate, Estimator
from areal_sim.plan.infeasible import explain_memory
from areal_sim.plan.question import MOST_GPUS
from areal_sim.plan.space import Candidate, Space


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Start:
    """A configuration to change, and what else there is to choose from.

    Attributes:
        question: what was asked.
        base: the configuration.
        estimates: every candidate on as many GPUs of the same kind, the best first.
        plan: whose answer the base is; None: it is only estimated.
        keeps_limits: the base keeps deadline, budget and step time, as far as is known.
    """

    question: Question
    base: Candidate
    estimates: tuple[Estimate, ...]
    plan: Plan | None = None
    keeps_limits: bool = True


def estimated(question: Question) -> Start:
    """The best estimate on all GPUs of the first kind: seconds, without any simulation.

    Raises:
        ConfigError: the question contradicts itself.
        Infeasible: nothing fits into the GPUs' memory.
    """
    offer = question.gpus[0]
    estimator = Estimator(question)
    space = Space(question, offer.gpu, offer.count or MOST_GPUS)
    worths = {estimate: estimator.worth(estimate) for estimate in estimator.all(space)}
    if not worths:
        raise explain_memory(question)

    def keeps(estimate: Estimate) -> bool:
        limits = (
            (question.deadline_h, worths[estimate].hours),
            (question.budget_usd, worths[estimate].cost_usd),
            (question.step_s, estimate.step_s),
        )
        return all(most is None or value <= most for most, value in limits)

    def order(estimate: Estimate) -> tuple[float, ...]:
        # As the planner ranks: of equal ones the greatest eta with the fewest rollouts in flight.
        candidate, value = estimate.candidate, worths[estimate].value(question.objective)
        freshness = (-candidate.eta, candidate.max_rollouts_in_flight)
        return (not keeps(estimate), value, estimate.step_s, *freshness)

    ranked = tuple(sorted(worths, key=order))
    return Start(
        question=question,
        base=ranked[0].candidate,
        estimates=ranked,
        keeps_limits=keeps(ranked[0]),
    )


def planned(plan: Plan) -> Start:
    """A plan's answer."""
    best = plan.best.candidate
    return Start(
        question=plan.question,
        base=best,
        estimates=tuple(
            estimate
            for estimate in plan.estimates
            if (estimate.candidate.gpu, estimate.candidate.gpus) == (best.gpu, best.gpus)
        ),
        plan=plan,
    )
