"""How long a pipeline of equal stages takes for micro-batches that are not equal.

Megatron-Core runs forward passes alone one after the other, and training passes in the order 1F1B
(PipeDream-Flush, arXiv 2104.04473): a stage has at most so many micro-batches in flight as there
are stages from it to the end. Equal micro-batches fill and drain, (m + p - 1) slots for m of them
on p stages; unequal ones also make stages wait for each other in between, since a stage may not run
ahead. That is why a trainer wants micro-batches of equal work.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from .protocol import TrainerCost

FORWARD_SHARE = 0.25
"""Of a micro-batch's update: forward is 1 of 4 passes, with full recomputation (1 of 3 without;
the split hardly matters for the whole)."""


def train_ranks_s(
    cost: TrainerCost,
    tokens: Sequence[Sequence[int]],
    pair_sums: Sequence[Sequence[int]],
    forward_only: bool = False,
) -> tuple[list[float], list[float]]:
    """Seconds that data-parallel ranks take for their micro-batches; 0 for none.

    Args:
        cost: the trainer.
        tokens: for each rank, sum(L) of every micro-batch.
        pair_sums: for each rank, sum(L^2) of every micro-batch.
        forward_only: log-probs only, instead of forward and backward.

    Returns:
        For each rank the whole time, and what of it its GPUs are busy.
    """
    base, token, pair = cost.update_base_s, cost.update_per_token_s, cost.update_per_token_pair_s
    if forward_only:
        base, token = cost.forward_base_s, cost.forward_per_token_s
        pair = cost.forward_per_token_pair_s
    # Whole numbers are summed before anything is rounded, so the order does not matter.
    busy = [
        base * len(own) + token * sum(own) + pair * sum(squares)
        for own, squares in zip(tokens, pair_sums, strict=True)
    ]
    stages = cost.pipeline_stages
    if stages == 1:
        return busy, busy
    slots = [
        [base + token * x + pair * y for x, y in zip(own, squares, strict=True)]
        for own, squares in zip(tokens, pair_sums, strict=True)
    ]
    if forward_only:
        return [forward_s(rank, stages) for rank in slots], busy
    return one_f_one_b_s(slots, stages), busy


def forward_s(slots_s: Sequence[float], stages: int) -> float:
    """Seconds of forward passes alone: all slots, and the longest once more for each other stage.

    That is exact for stages of equal speed (a proportionate permutation flow shop).
    """
    return sum(slots_s) + (stages - 1) * max(slots_s, default=0.0)


def one_f_one_b_s(ranks_s: Sequence[Sequence[float]], stages: int) -> list[float]:
    """Seconds of forward and backward in the order 1F1B, for each of some ranks.

    Args:
        ranks_s: for each rank, what each of its micro-batches takes on one stage, both passes.
        stages: of the pipeline.

    Returns:
        For each rank the time from its first stage's start to its last backward pass.
    """
    if stages == 1:
        return [sum(rank) for rank in ranks_s]
    times = [0.0] * len(ranks_s)
    of_count: dict[int, list[int]] = {}
    for number, rank in enumerate(ranks_s):
        of_count.setdefault(len(rank), []).append(number)
    for count, numbers in of_count.items():
        if count:
            slots = np.array([ranks_s[number] for number in numbers])
            for number, time in zip(numbers, _makespans(slots, stages).tolist(), strict=True):
                times[number] = time
    return times


def _makespans(slots: np.ndarray, stages: int) -> np.ndarray:
    """The same for ranks with equally many micro-batches: (ranks, m) to (ranks,)."""
    ranks, count = slots.shape
    passes = (
        np.ascontiguousarray((slots * FORWARD_SHARE).T),
        np.ascontiguousarray((slots * (1 - FORWARD_SHARE)).T),
    )
    ends = np.zeros((2, stages, count, ranks))
    free = np.zeros((stages, ranks))  # when a stage is done with what it did last
    for stage, backward, micro in _order(count, stages):
        start = free[stage]
        before = stage + 1 if backward else stage - 1
        if 0 <= before < stages:
            start = np.maximum(start, ends[backward, before, micro])
        # The last stage's backward pass follows its own forward pass, which `free` stands for.
        free[stage] = ends[backward, stage, micro] = start + passes[backward][micro]
    return np.asarray(free.max(axis=0))


@functools.lru_cache(maxsize=256)
def _order(count: int, stages: int) -> list[tuple[int, int, int]]:
    """(stage, backward, micro-batch) of all passes: each after those that it waits for."""
    plans = [_plan(count, stages - 1 - stage) for stage in range(stages)]
    done: set[tuple[int, int, int]] = set()
    next_of = [0] * stages
    order: list[tuple[int, int, int]] = []
    while len(order) < 2 * count * stages:
        for stage, plan in enumerate(plans):
            while next_of[stage] < len(plan):
                backward, micro = plan[next_of[stage]]
                before = stage + 1 if backward else stage - 1
                if 0 <= before < stages and (before, backward, micro) not in done:
                    break
                done.add((stage, backward, micro))
                order.append((stage, backward, micro))
                next_of[stage] += 1
    return order


def _plan(count: int, ahead: int) -> list[tuple[int, int]]:
    """(backward, micro-batch) of one stage: `ahead` forward passes, then one of each in turn."""
    begun = min(count, ahead)
    plan = [(0, micro) for micro in range(begun)]
    for micro in range(count):
        if begun < count:
            plan.append((0, begun))
            begun += 1
        plan.append((1, micro))
    return plan
