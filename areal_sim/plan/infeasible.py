"""Questions without an answer: which constraint fails first, and what the least change would be."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from areal_sched.errors import ArealError
from areal_sim.hardware import GPUS
from areal_sim.memory import DoesNotFit
from areal_sim.plan.question import MOST_GPUS, Offer, Question
from areal_sim.plan.space import Space

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
    changes = [change for offer in question.gpus for change in _remedies(question, offer)]
    return Infeasible("; ".join(reasons), list(dict.fromkeys(changes)))


def fits(question: Question, gpu: str, gpus: int) -> bool:
    """Whether any server and trainer fit on so many GPUs, together or in turn."""
    space = Space(question, gpu, gpus)
    least = space.least_gpus
    if least is not None and least <= gpus:
        return True
    return "synchronous" in question.schedulers and space.in_turn


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


def _remedies(question: Question, offer: Offer) -> Iterator[str]:
    """More of the same GPUs; as many of another kind; a shorter context."""
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
