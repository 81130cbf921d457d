"""Questions without an answer: which constraint fails first, and what the least change would be."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from areal_sched.errors import ArealError
from areal_sim.hardware import GPUS
from areal_sim.memory import DoesNotFit
from areal_sim.plan.question import MOST_GPUS, Offer, Question
from areal_sim.plan.space import Space
from areal_sim.worth import Worth

if TYPE_CHECKING:
    pass

LEAST_RESPONSE_TOKENS = 1024
"""Shorter answers are not proposed: no reasoning model is trained with them."""


class Infeasible(ArealError):
    """There is no answer.

    Attributes:
        reason: the constraint that fails first.
        changes: what would make it feasible, the smallest first.
    """

    def __init__(self, reason: str, changes: Sequence[str]) -> None:
        self.reason = reason
        self.changes = tuple(changes)
        remedy = "; would do: " + ", or ".join(changes) if changes else ""
        super().__init__(f"no answer: {reason}{remedy}")


def explain_memory(question: Question) -> Infeasible:
    """Why no layout fits on any of the GPUs, and the least change of number, kind or context."""
    reasons = [_why_not(question, offer) for offer in question.gpus]
    return Infeasible(reasons[0], list(_remedies(question)))


def fits(question: Question, gpu: str, gpus: int) -> bool:
    """Whether any server and trainer fit together on so many GPUs."""
    space = Space(question, gpu, gpus)
    least = space.least_gpus
    return least is not None and least <= gpus


def _why_not(question: Question, offer: Offer) -> str:
    count = offer.count or MOST_GPUS
    space = Space(question, offer.gpu, count)
    where = f"{question.shape().name} on {count} {offer.gpu}"
    if not space.servers:
        return f"{where}: no server fits: {_nearest(space.refused_servers)}"
    if not space.trainers():
        refused = _nearest(space.refused_trainers) if space.refused_trainers else "too few GPUs"
        return f"{where}: no trainer fits: {refused}"
    server = min(server.tensor_parallel for server in space.servers)
    trainer = min(trainer.gpus for trainer in space.trainers())
    return (
        f"{where}: the smallest server needs {server} of them and the smallest trainer {trainer},"
        f" {server + trainer} together"
    )


def _nearest(refused: Sequence[DoesNotFit]) -> str:
    """The layout that is nearest to fitting, without its advice, which is for one layout."""
    return f"{refused[0].what}, {refused[0].missing_bytes / 1e9:.1f} GB too much"


def _remedies(question: Question) -> Iterator[str]:
    """More of the same GPUs; as many of another kind; a shorter context."""
    offer = question.gpus[0]
    count = offer.count or MOST_GPUS
    per_node = question.gpus_per_node
    more = (n for n in (*range(count + 1, per_node + 1), *range(per_node, MOST_GPUS + 1, per_node)))
    enough = next((n for n in more if n > count and fits(question, offer.gpu, n)), None)
    if enough is not None:
        yield f"{enough} {offer.gpu} in place of {count}"
    known = {gpu.name: gpu for gpu in GPUS.values()}
    own = known[offer.gpu].memory_bytes
    larger = [gpu for gpu in known.values() if gpu.memory_bytes > own]
    larger.sort(key=lambda gpu: (gpu.memory_bytes, gpu.power.usd_per_hour.value))
    other = next((gpu.name for gpu in larger if fits(question, gpu.name, count)), None)
    if other is not None:
        yield f"{count} {other}"
    if (tokens := _shorter(question, offer.gpu, count)) is not None:
        yield f"max_response_tokens = {tokens}"


def _shorter(question: Question, gpu: str, count: int) -> int | None:
    """The longest response that fits, to whole 1024 tokens; None: not even short ones do."""
    low, high = 0, question.max_response_tokens // LEAST_RESPONSE_TOKENS
    while low < high:
        middle = (low + high + 1) // 2
        tokens = middle * LEAST_RESPONSE_TOKENS
        shorter = dataclasses.replace(question, max_response_tokens=tokens)
        low, high = (middle, high) if fits(shorter, gpu, count) else (low, middle - 1)
    return low * LEAST_RESPONSE_TOKENS or None


class Known(Protocol):
    """What is known of a candidate: simulated, or estimated."""

    @property
    def worth(self) -> Worth:
        """Of all steps."""

    @property
    def step_s(self) -> float:
        """Of one step."""


@dataclasses.dataclass(frozen=True, slots=True)
class Guess:
    """An estimate as `Known`."""

    worth: Worth
    step_s: float


def explain_limits(question: Question, known: Sequence[Known]) -> Infeasible:
    """Why nothing keeps the limits: the one that is missed by most, and by how much.

    Args:
        question: what was asked.
        known: candidates, none of which keeps all limits.
    """
    limits: dict[str, tuple[float | None, str, Callable[[Known], float]]] = {
        "deadline_h": (question.deadline_h, "h", lambda each: each.worth.hours),
        "budget_usd": (question.budget_usd, "USD", lambda each: each.worth.cost_usd),
        "step_s": (question.step_s, "s", lambda each: each.step_s),
    }
    given = {
        name: (most, unit, of) for name, (most, unit, of) in limits.items() if most is not None
    }
    # Alone, a limit may be kept by somebody; the first that nobody keeps is the reason.
    for name, (most, unit, of) in given.items():
        best = min(of(each) for each in known)
        if best > most:
            return Infeasible(
                f"{name} = {most:g}: the least that was found is {best:,.4g} {unit}",
                [f"{name} = {_rounded_up(best):g}", *_more(question)],
            )
    (name, (most, unit, of)), *others = given.items()
    kept = [each for each in known if all(g(each) <= m for _, (m, _, g) in others)]
    best = min((of(each) for each in kept), default=float("nan"))
    with_them = " and ".join(f"{other} = {m:g}" for other, (m, _, _) in others)
    return Infeasible(
        f"{name} = {most:g}: where {with_them}, the least that was found is {best:,.4g} {unit}",
        [f"{name} = {_rounded_up(best):g}"],
    )


def _rounded_up(value: float) -> float:
    """To three digits, upwards."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.ceil(value / unit) * unit


def _more(question: Question) -> list[str]:
    if question.budget_usd is not None:
        return []
    offer = question.gpus[0]
    return [f"more GPUs than {offer}"] if offer.count is not None else []
