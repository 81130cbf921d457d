"""Questions whose limits nobody keeps: which limit fails, and what would do."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from areal_sim.plan.estimate import Estimator
from areal_sim.plan.infeasible import Infeasible
from areal_sim.plan.question import Objective, Question
from areal_sim.plan.space import Space

if TYPE_CHECKING:
    from areal_sim.plan.finding import Finding
    from areal_sim.plan.search import Search

MORE = (1.5, 2, 3, 4)
"""So many times the GPUs are looked at for a limit that the given ones do not keep."""


MARGIN = 0.005
"""On top of the least that was found, so that it is found again."""


@dataclasses.dataclass(frozen=True, slots=True)
class Limit:
    """A limit of a question: its field, its unit, and what to make small to keep it."""

    field: str
    unit: str
    objective: Objective

    def of(self, finding: Finding) -> float:
        """What a finding has of it."""
        worth = finding.worth
        return {
            "deadline_h": worth.hours,
            "budget_usd": worth.cost_usd,
            "step_s": finding.step_s,
        }[self.field]


LIMITS = (
    Limit("deadline_h", "h", "hours"),
    Limit("step_s", "s", "hours"),
    Limit("budget_usd", "USD", "cost"),
)


def explain_limits(search: Search) -> Infeasible:
    """Why a search found nothing that keeps the limits: answers the question without one of them.

    Args:
        search: it has simulated and found nothing.
    """
    question = search.question
    given = [limit for limit in LIMITS if getattr(question, limit.field) is not None]
    none = Infeasible("no candidate keeps the limits", [])
    for dropped in ([limit] for limit in given):
        if (found := _without(search, dropped)) is not None:
            return _missed(search, dropped[0], found)
    found = _without(search, given)
    return none if found is None else _missed(search, given[0], found)


def _without(search: Search, limits: list[Limit]) -> Finding | None:
    """The best answer where some limits do not count, and all is done to keep the first."""
    changes: dict[str, Any] = {limit.field: None for limit in limits}
    question = dataclasses.replace(search.question, objective=limits[0].objective, **changes)
    try:
        return search.again(question).run(explain=False)[0]
    except Infeasible:
        return None


def _missed(search: Search, limit: Limit, found: Finding) -> Infeasible:
    most, least = getattr(search.question, limit.field), limit.of(found)
    changes = [f"{limit.field} = {_rounded_up(least * (1 + MARGIN)):g}"]
    if limit.objective == "hours" and search.question.budget_usd is None:
        changes += _more_gpus(search.question, found, most / least)
    return Infeasible(
        f"{limit.field} = {most:g}: the least that was found is {least:,.4g} {limit.unit}", changes
    )


def _more_gpus(question: Question, found: Finding, wanted: float) -> Iterator[str]:
    """About how many GPUs would make a step so much shorter, by the estimates alone."""
    gpu, gpus = found.candidate.gpu, found.candidate.gpus
    estimator = Estimator(question)
    before = min(each.step_s for each in estimator.all(Space(question, gpu, gpus)))
    per_node = min(question.gpus_per_node, gpus)
    for factor in MORE:
        more = math.ceil(gpus * factor / per_node) * per_node
        if more > question.gpus_per_node and more % question.gpus_per_node:
            continue
        if (
            min(each.step_s for each in estimator.all(Space(question, gpu, more)))
            <= before * wanted
        ):
            yield f"about {more} {gpu} in place of {gpus}, by an estimate"
            return


def _rounded_up(value: float) -> float:
    """To three digits, upwards."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.ceil(value / unit) * unit
