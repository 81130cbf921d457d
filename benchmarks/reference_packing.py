"""Plain versions of what `areal_sched.packing` does fast, and exhaustive optima for small cases.

They follow the definitions word for word and are the oracle of the tests and the yardstick of
`python -m benchmarks.packing`. Nothing here validates its input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations


def descending(sizes: Sequence[int]) -> list[int]:
    """Positions by size, largest first; equal sizes by position."""
    return sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))


def algorithm_1(sizes: Sequence[int], capacity: int, k_min: int = 1) -> list[list[int]]:
    """The paper's Algorithm 1, scanning all open micro-batches for each sequence."""
    batches: list[list[int]] = []
    loads: list[int] = []
    for i in descending(sizes):
        chosen = -1
        if len(batches) >= k_min:
            limit = capacity - sizes[i]
            fewest = len(sizes) + 1
            for b, load in enumerate(loads):
                if load <= limit and len(batches[b]) < fewest:
                    chosen, fewest = b, len(batches[b])
        if chosen < 0:
            batches.append([i])
            loads.append(sizes[i])
        else:
            batches[chosen].append(i)
            loads[chosen] += sizes[i]
    return batches


def first_fit_decreasing(sizes: Sequence[int], capacity: int, k_min: int = 1) -> list[list[int]]:
    """First-fit decreasing, scanning the open micro-batches in order for each sequence."""
    batches: list[list[int]] = []
    loads: list[int] = []
    for i in descending(sizes):
        chosen = -1
        if len(batches) >= k_min:
            limit = capacity - sizes[i]
            for b, load in enumerate(loads):
                if load <= limit:
                    chosen = b
                    break
        if chosen < 0:
            batches.append([i])
            loads.append(sizes[i])
        else:
            batches[chosen].append(i)
            loads[chosen] += sizes[i]
    return batches


def longest_processing_time(
    costs: Sequence[int], ranks: int, equal_counts: bool = False
) -> list[list[int]]:
    """Each sequence to the cheapest rank, scanning all ranks."""
    shares: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    floor = len(costs) // ranks
    for dealt, i in enumerate(descending(costs)):
        # With equal counts, the rest is dealt only after every rank has its floor.
        count = floor + (dealt >= floor * ranks) if equal_counts else len(costs)
        rank = min((r for r in range(ranks) if len(shares[r]) < count), key=lambda r: (loads[r], r))
        shares[rank].append(i)
        loads[rank] += costs[i]
    return shares


def karmarkar_karp(costs: Sequence[int], ranks: int, equal_counts: bool = False) -> list[list[int]]:
    """Largest differencing, with a sum for every rank in every solution and a full sort a merge."""
    order = descending(costs)
    step = ranks if equal_counts else 1
    solutions: list[tuple[int, int, list[tuple[int, list[int]]]]] = []
    for serial, start in enumerate(range(0, len(order), step)):
        slots = [(costs[i], [i]) for i in order[start : start + step]]
        slots += [(0, [])] * (ranks - len(slots))
        solutions.append((slots[0][0] - slots[-1][0], serial, slots))
    if not solutions:
        return [[] for _ in range(ranks)]
    serial = 0
    while len(solutions) > 1:
        solutions.sort(key=lambda s: (-s[0], s[1]))
        (_, _, first), (_, _, second) = solutions[:2]
        merged = [
            (a + b, mine + other)
            for (a, mine), (b, other) in zip(first, reversed(second), strict=True)
        ]
        merged.sort(key=lambda slot: -slot[0])
        serial -= 1
        solutions[:2] = [(merged[0][0] - merged[-1][0], serial, merged)]
    return [sorted(share) for _, share in solutions[0][2]]


def pack(
    sizes: Sequence[int],
    capacity: int,
    ranks: int,
    minibatches: int,
    algorithm: Callable[[Sequence[int], int, int], list[list[int]]] = algorithm_1,
) -> list[list[list[list[int]]]]:
    """One training step: consecutive minibatches, ranks by cost, micro-batches."""
    packed = []
    length, extra = divmod(len(sizes), minibatches)
    start = 0
    for m in range(minibatches):
        stop = start + length + (m < extra)
        if stop == start:
            break
        by_rank = []
        for share in longest_processing_time(sizes[start:stop], ranks):
            own = sorted(start + i for i in share)
            batches = algorithm([sizes[i] for i in own], capacity, 1)
            by_rank.append([[own[i] for i in batch] for batch in batches])
        packed.append(by_rank)
        start = stop
    return packed


def fewest_micro_batches(sizes: Sequence[int], capacity: int) -> int:
    """The optimum, by exhaustive search over which open micro-batch each sequence joins."""
    falling = sorted(sizes, reverse=True)
    best = len(falling)

    def place(at: int, loads: list[int]) -> None:
        nonlocal best
        if len(loads) >= best:
            return
        if at == len(falling):
            best = len(loads)
            return
        for b in range(len(loads)):
            if loads[b] + falling[at] <= capacity and loads[b] not in loads[:b]:
                loads[b] += falling[at]
                place(at + 1, loads)
                loads[b] -= falling[at]
        loads.append(falling[at])
        place(at + 1, loads)
        loads.pop()

    place(0, [])
    return best


def smallest_makespan(costs: Sequence[int], ranks: int, equal_counts: bool = False) -> int:
    """The optimum of the costliest rank, by exhaustive search."""
    floor, extra = divmod(len(costs), ranks)
    best = sum(costs)

    def deal(left: tuple[int, ...], rank: int, largest: int) -> None:
        nonlocal best
        if largest >= best:
            return
        if rank == ranks - 1:
            best = min(best, max(largest, sum(left)))
            return
        # Ranks are alike, so the larger counts may come first.
        counts = [floor + (rank < extra)] if equal_counts else range(len(left) + 1)
        for count in counts:
            for taken in combinations(range(len(left)), count):
                rest = tuple(c for i, c in enumerate(left) if i not in taken)
                deal(rest, rank + 1, max(largest, sum(left[i] for i in taken)))

    deal(tuple(costs), 0, 0)
    return best
