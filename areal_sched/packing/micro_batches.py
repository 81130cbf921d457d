"""Sequences into micro-batches: the paper's Algorithm 1 and what it is compared with.

Every packer here is a `Packer`: it takes `(sizes, capacity, k_min)` and returns micro-batches,
each a list of positions in `sizes`. A size is a number of tokens, or any other positive integer
that adds up over a micro-batch (say linear plus quadratic FLOPs in some unit); the capacity is
in the same unit.

Definitions. A micro-batch is *open* once it holds a sequence. It *can take* a sequence when the
sizes in it and the new one sum to at most the capacity. `k_min` is the least number of
micro-batches; fewer come out only if there are fewer sequences.

Bound. Write S for the sum of sizes and C for the capacity. `algorithm_1` and
`first_fit_decreasing` give m <= max(k_min, ceil(2 S / C)) micro-batches. Proof: let m > k_min, and
let s be the sequence that opened the last one, because none of the m - 1 others could take it. If
s <= C / 2, each of those held more than C - s >= C / 2. If s > C / 2, each held a sequence at
least as large as s, as sizes come in descending order. Either way S > (m - 1) C / 2, and m being
whole, m <= ceil(2 S / C). The optimum is at least ceil(S / C), so for k_min = 1 neither needs more
than twice the optimum. Both are any-fit decreasing rules, for which Johnson (Fast algorithms for
bin packing, 1974) gives 5/4 asymptotically; first-fit decreasing alone has 11/9 OPT + 6/9
(Dosa, Li, Han, Tuza, Theoretical Computer Science 2013), again for k_min = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from typing import TypeAlias

from areal_sched.packing.checks import (
    PackingError,
    checked_capacity,
    checked_count,
    checked_sizes,
)

Packer: TypeAlias = Callable[[Sequence[int], int, int], list[list[int]]]


def algorithm_1(sizes: Sequence[int], capacity: int, k_min: int = 1) -> list[list[int]]:
    """Dynamic micro-batching, Algorithm 1 of AReaL (arXiv 2505.24298).

    Sequences are taken by size, descending (equal sizes: lower position first). While fewer than
    `k_min` micro-batches are open, or when none can take the sequence, it opens a new one.
    Otherwise it joins the one that holds the fewest sequences among those that can take it (equal
    counts: the one opened first).

    Args:
        sizes: Size of each sequence, at least one, in the unit of `capacity`.
        capacity: Most that the sizes in one micro-batch may sum to.
        k_min: Least number of micro-batches.

    Returns:
        Micro-batches in the order they were opened, each the positions of its sequences in the
        order they joined. Empty for no sequences. O(n log n); see the module for the bound.

    Raises:
        OversizedSequence: A sequence is larger than the capacity.
        PackingError: A size is not a positive integer, or `capacity` or `k_min` is below one.
    """
    return _any_fit_decreasing(sizes, capacity, k_min, fewest_first=True)


def first_fit_decreasing(sizes: Sequence[int], capacity: int, k_min: int = 1) -> list[list[int]]:
    """The variant in circulation under the name of Algorithm 1.

    As `algorithm_1`, except that a sequence joins the micro-batch opened first among those that
    can take it, however many sequences that one holds.

    Args:
        sizes: Size of each sequence, at least one, in the unit of `capacity`.
        capacity: Most that the sizes in one micro-batch may sum to.
        k_min: Least number of micro-batches.

    Returns:
        As `algorithm_1`.

    Raises:
        OversizedSequence: A sequence is larger than the capacity.
        PackingError: A size is not a positive integer, or `capacity` or `k_min` is below one.
    """
    return _any_fit_decreasing(sizes, capacity, k_min, fewest_first=False)


def _any_fit_decreasing(
    sizes: Sequence[int], capacity: int, k_min: int, *, fewest_first: bool
) -> list[list[int]]:
    """Both rules, in O(n log n), because sizes only fall.

    Once a micro-batch can take the current sequence it can take every later one, until something
    joins it. So each waits in one of two heaps: `waiting`, by room, until the sizes have come down
    to it; then `ready`, by preference. A join costs one operation on `ready`, and one push and one
    pop on `waiting` only if the room has become too small for another of the same size. Heap
    entries are single integers, (key << shift) + position: they compare faster than tuples.
    """
    sizes = checked_sizes("sizes", sizes)
    capacity = checked_capacity(sizes, capacity)
    k_min = checked_count("k_min", k_min)
    order = sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True)
    batches = [[i] for i in order[:k_min]]
    if len(order) <= k_min:
        return batches

    smallest = sizes[order[-1]]
    shift = len(order).bit_length()
    mask = (1 << shift) - 1
    one_more = 1 << shift if fewest_first else 0  # what a join adds to a preference
    rooms = [capacity - sizes[batch[0]] for batch in batches]
    # Negative room first, so the roomiest is on top. The sentinel 0 is above every entry.
    waiting = [(-room << shift) + b for b, room in enumerate(rooms) if room >= smallest]
    waiting.append(0)
    heapify(waiting)
    ready: list[int] = []

    for i in order[k_min:]:
        size = sizes[i]
        last_with_room = mask - (size << shift)
        while waiting[0] <= last_with_room:
            b = heappop(waiting) & mask
            heappush(ready, b + (len(batches[b]) << shift) if fewest_first else b)
        if ready:
            chosen = ready[0]
            b = chosen & mask
            batches[b].append(i)
            room = rooms[b] = rooms[b] - size
            if room >= size:
                if one_more:
                    heapreplace(ready, chosen + one_more)
                continue
            heappop(ready)
        else:
            b = len(batches)
            batches.append([i])
            room = capacity - size
            rooms.append(room)
        if room >= smallest:
            heappush(waiting, (-room << shift) + b)
    return batches


def padded_static(
    sizes: Sequence[int], capacity: int, k_min: int = 1, *, pad_to_tokens: int | None = None
) -> list[list[int]]:
    """Fixed micro-batches, the standard the paper compares Algorithm 1 with (Figure 6a).

    Sequences stay in the given order and are cut into consecutive micro-batches of equal count
    (to within one, larger first), as few as keep the *padded* size of each within the capacity:
    every sequence counts as `pad_to_tokens`. A static trainer has to choose so, since it must
    fit the worst case. The paper's baseline sets the number itself, 32 micro-batches: that is
    `k_min=32` with room to spare in the capacity.

    What such a micro-batch costs is `padded_tokens` for a trainer that pads, and the plain sum of
    its sizes for one that does not.

    Args:
        sizes: Tokens of each sequence, at least one.
        capacity: Most padded tokens in one micro-batch.
        k_min: Least number of micro-batches.
        pad_to_tokens: Length that every sequence is padded to; the longest one given by default.

    Returns:
        Consecutive runs of positions. Empty for no sequences.

    Raises:
        OversizedSequence: A sequence is longer than the capacity.
        PackingError: A sequence is longer than `pad_to_tokens`, `pad_to_tokens` is over the
            capacity, a size is not a positive integer, or an argument is below one.
    """
    sizes = checked_sizes("sizes", sizes)
    capacity = checked_capacity(sizes, capacity)
    k_min = checked_count("k_min", k_min)
    _check_padding(sizes, pad_to_tokens)
    if pad_to_tokens is not None and pad_to_tokens > capacity:
        raise PackingError(f"pad_to_tokens is {pad_to_tokens}, over the capacity {capacity}")
    if not sizes:
        return []
    per_batch = capacity // (pad_to_tokens or max(sizes))
    fewest = -(-len(sizes) // per_batch)
    batches = max(fewest, min(k_min, len(sizes)))
    return [list(run) for run in equal_runs(len(sizes), batches)]


def padded_tokens(
    sizes: Sequence[int],
    micro_batches: Iterable[Sequence[int]],
    pad_to_tokens: int | None = None,
) -> list[int]:
    """Tokens that a padding trainer computes for each micro-batch.

    Args:
        sizes: Tokens of each sequence, at least one.
        micro_batches: Positions in `sizes`; an empty micro-batch costs nothing.
        pad_to_tokens: Common length. By default each micro-batch pads to its own longest sequence.

    Returns:
        For each micro-batch, its number of sequences times the padded length.

    Raises:
        PackingError: A size is not a positive integer or is above `pad_to_tokens`.
    """
    sizes = checked_sizes("sizes", sizes)
    _check_padding(sizes, pad_to_tokens)
    if pad_to_tokens is not None:
        return [len(batch) * pad_to_tokens for batch in micro_batches]
    return [
        len(batch) * max(map(sizes.__getitem__, batch)) if batch else 0 for batch in micro_batches
    ]


def equal_runs(count: int, runs: int) -> list[range]:
    """Cut range(count) into `runs` consecutive runs of equal length, to within one, larger first.

    Args:
        count: How many positions there are.
        runs: How many runs, at least one unless `count` is zero.

    Returns:
        The positions of each run.
    """
    if not count:
        return []
    length, extra = divmod(count, runs)
    starts = [r * length + min(r, extra) for r in range(runs + 1)]
    return [range(starts[r], starts[r + 1]) for r in range(runs)]


def _check_padding(sizes: Sequence[int], pad_to_tokens: int | None) -> None:
    if pad_to_tokens is None:
        return
    pad_to_tokens = checked_count("pad_to_tokens", pad_to_tokens)
    for i, size in enumerate(sizes):
        if size > pad_to_tokens:
            raise PackingError(f"sizes[{i}] is {size}, longer than pad_to_tokens {pad_to_tokens}")
