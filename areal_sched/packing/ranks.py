"""Sequences onto data-parallel ranks, so that every rank has nearly the same cost.

Both balancers are a `Balancer`: they take `(costs, ranks, equal_counts)` and return one list of
positions per rank. With equal counts, ranks differ by at most one sequence.

Bounds, for m ranks, OPT the smallest possible cost of the costliest rank:

- `longest_processing_time`: at most (4/3 - 1/(3 m)) OPT (Graham, Bounds on multiprocessing timing
  anomalies, 1969). Ranks differ by at most the largest cost: a sequence joins the cheapest rank.
- `karmarkar_karp`: at most (4/3 - 1/(3 m)) OPT, and 7/6 OPT for m = 2; optimal for at most m + 2
  sequences (Fischetti and Martello 1987; Michiels, Korst, Aarts and van Leeuwen, Performance
  ratios of the Karmarkar-Karp differencing method, 2007). On many sequences it is far better.
- `karmarkar_karp` with equal counts of k: 2 - sum(i! / k! for i < k) times the best with equal
  counts (Michiels et al., The differencing method applied to the balanced number partitioning
  problem, 2003, for k from 3 to 6).
- Either form of `karmarkar_karp` leaves ranks within the largest cost of each other. Proof: a
  solution's spread is its largest minus its smallest sum. Merging adds a descending list a and an
  ascending list b. For two of its sums, i before j, (a_i + b_i) - (a_j + b_j) is the difference of
  a_i - a_j and b_j - b_i, both at least zero and at most their spread: so its size is at most the
  larger spread. At the start no spread exceeds the largest cost.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from operator import add
from typing import TypeAlias

from areal_sched.packing.checks import checked_count, checked_sizes

Balancer: TypeAlias = Callable[[Sequence[int], int, bool], list[list[int]]]

# A partial solution of the differencing method: (-spread, serial, negative sums ascending, the
# positions behind each sum). Serials are unique, so comparing two never reaches the lists.
_Solution: TypeAlias = tuple[int, int, list[int], list[list[int]]]


def longest_processing_time(
    costs: Sequence[int], ranks: int, equal_counts: bool = False
) -> list[list[int]]:
    """Greedy: each sequence, costliest first, to the rank that is cheapest so far.

    Ties go to the lower position, then to the lower rank. With equal counts, a rank that holds
    floor(n / ranks) sequences waits until all do; what is left, the cheapest, then goes one each
    to the cheapest ranks.

    Args:
        costs: Cost of each sequence, at least one.
        ranks: Number of data-parallel ranks.
        equal_counts: Give every rank the same number of sequences, to within one.

    Returns:
        For each rank its positions in `costs`, costliest first. O(n log n).

    Raises:
        PackingError: A cost is not a positive integer, or `ranks` is below one.
    """
    costs = checked_sizes("costs", costs)
    ranks = checked_count("ranks", ranks)
    order = sorted(range(len(costs)), key=costs.__getitem__, reverse=True)
    shares: list[list[int]] = [[] for _ in range(ranks)]
    loads = list(range(ranks))  # load * ranks + rank: one integer orders by load, then rank
    if not equal_counts:
        for i in order:
            load = loads[0]
            shares[load % ranks].append(i)
            heapreplace(loads, load + costs[i] * ranks)
        return shares

    full_count = len(order) // ranks
    dealt = full_count * ranks
    full: list[int] = []
    for i in order[:dealt]:
        load = loads[0]
        share = shares[load % ranks]
        share.append(i)
        if len(share) < full_count:
            heapreplace(loads, load + costs[i] * ranks)
        else:
            full.append(heappop(loads) + costs[i] * ranks)
    for i, load in zip(order[dealt:], sorted(full or loads), strict=False):
        shares[load % ranks].append(i)
    return shares


def karmarkar_karp(costs: Sequence[int], ranks: int, equal_counts: bool = False) -> list[list[int]]:
    """The largest differencing method of Karmarkar and Karp (1982), for any number of ranks.

    Every sequence starts as a solution of its own, with a sum for each rank of which one is not
    zero. The two solutions of largest spread are merged, largest sum with smallest, until one is
    left. Equal spreads: the solution merged last goes first, then sequences in order of cost,
    then of position. With equal counts the start is a solution for every `ranks` sequences in
    descending order, one on each rank (the last may leave ranks empty).

    Args:
        costs: Cost of each sequence, at least one.
        ranks: Number of data-parallel ranks.
        equal_counts: Give every rank the same number of sequences, to within one.

    Returns:
        For each rank its positions in `costs`, ascending; the costliest rank first. With m ranks,
        O(n log n) and about n / m merges of O(m log m) each where costs are alike.

    Raises:
        PackingError: A cost is not a positive integer, or `ranks` is below one.
    """
    costs = checked_sizes("costs", costs)
    ranks = checked_count("ranks", ranks)
    if ranks == 1 or not costs:
        return [list(range(len(costs))), *([] for _ in range(ranks - 1))]
    order = sorted(range(len(costs)), key=costs.__getitem__, reverse=True)
    shares = _merge_blocks(costs, order, ranks) if equal_counts else _merge(costs, order, ranks)
    for share in shares:
        share.sort()
    return shares


def _merge_blocks(costs: list[int], order: list[int], ranks: int) -> list[list[int]]:
    """Start from one solution per `ranks` consecutive sequences, so counts stay equal."""
    heap: list[_Solution] = []
    for serial, start in enumerate(range(0, len(order), ranks)):
        block = order[start : start + ranks]
        sums, shares = _padded([-costs[i] for i in block], [[i] for i in block], ranks)
        heap.append((sums[0] - sums[-1], serial, sums, shares))
    heapify(heap)
    serial = 0
    while len(heap) > 1:
        _, _, sums, shares = heappop(heap)
        sums, shares = _merged(sums, shares, heap[0][2], heap[0][3])
        serial -= 1
        heapreplace(heap, (sums[0] - sums[-1], serial, sums, shares))
    return heap[0][3]


def _merge(costs: list[int], order: list[int], ranks: int) -> list[list[int]]:
    """Start from one solution per sequence, without making `ranks` sums for each.

    Sequences stay in `order`; only solutions without an empty rank are on the heap. A solution
    with an empty rank has its largest sum as spread, which one more sequence does not change. So
    it stays the largest, and while the next largest is a sequence, merging is appending.
    """
    heap: list[_Solution] = []
    count = len(order)
    at = serial = 0
    while True:
        serial -= 1
        if heap and (at == count or heap[0][0] <= -costs[order[at]]):
            _, _, sums, shares = heappop(heap)
            if at < count and not (heap and heap[0][0] <= -costs[order[at]]):
                # One more sequence on the smallest sum, and that sum to its new place.
                i = order[at]
                at += 1
                grown, share = sums.pop() - costs[i], shares.pop()
                share.append(i)
                place = bisect_right(sums, grown)
                sums.insert(place, grown)
                shares.insert(place, share)
            elif heap:
                _, _, others, other_shares = heappop(heap)
                sums, shares = _merged(sums, shares, others, other_shares)
            else:
                return shares
        else:
            sums, shares = [], []
            stop = min(count, at + ranks)
            while at < stop:
                i = order[at]
                cost = costs[i]
                if heap and sums and heap[0][0] <= -cost:
                    break
                sums.append(-cost)
                shares.append([i])
                at += 1
            if len(sums) < ranks:
                sums, shares = _padded(sums, shares, ranks)
                if not heap:
                    return shares
                _, _, others, other_shares = heappop(heap)
                sums, shares = _merged(sums, shares, others, other_shares)
        heappush(heap, (sums[0] - sums[-1], serial, sums, shares))


def _padded(
    sums: list[int], shares: list[list[int]], ranks: int
) -> tuple[list[int], list[list[int]]]:
    """Give a solution its empty ranks."""
    empty = ranks - len(sums)
    return sums + [0] * empty, shares + [[] for _ in range(empty)]


def _merged(
    sums: list[int], shares: list[list[int]], others: list[int], other_shares: list[list[int]]
) -> tuple[list[int], list[list[int]]]:
    """Add the largest sum of one solution to the smallest of the other, and so on."""
    totals = list(map(add, sums, reversed(others)))
    joined = []
    for share, other in zip(shares, reversed(other_shares), strict=True):
        if len(share) < len(other):  # extend the longer: all merges together are O(n log n)
            share, other = other, share
        share.extend(other)
        joined.append(share)
    places = sorted(range(len(totals)), key=totals.__getitem__)
    return [totals[p] for p in places], [joined[p] for p in places]
