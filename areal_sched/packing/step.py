"""The whole path of one training step: minibatches, then ranks, then micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from areal_sched.packing.checks import (
    PackingError,
    checked_capacity,
    checked_count,
    checked_sizes,
)
from areal_sched.packing.micro_batches import Packer, algorithm_1, equal_runs
from areal_sched.packing.ranks import Balancer, longest_processing_time

PackedStep: TypeAlias = list[list[list[list[int]]]]
"""Positions of sequences, as `packed[minibatch][rank][micro_batch]`."""


def pack(
    sizes: Sequence[int],
    *,
    capacity: int,
    ranks: int,
    minibatches: int = 1,
    algorithm: Packer = algorithm_1,
    balance: Balancer = longest_processing_time,
    costs: Sequence[int] | None = None,
    k_min: int = 1,
    equal_counts: bool = False,
    equal_micro_batches: bool = False,
) -> PackedStep:
    """Lay one training step's sequences out for its trainer.

    The sequences are cut, in the given order, into minibatches of equal count (to within one,
    larger first). Each minibatch is balanced over the data-parallel ranks by cost, and what a rank
    gets is packed into micro-batches under the capacity. The paper trains 8192 sequences a step
    in 4 minibatches with 32,768 tokens a micro-batch.

    Args:
        sizes: What the capacity limits: tokens of each sequence, or any other positive integer
            that adds up over a micro-batch.
        capacity: Most that the sizes in one micro-batch may sum to.
        ranks: Data-parallel ranks.
        minibatches: PPO minibatches, each one optimizer step. With fewer sequences than
            minibatches, each sequence is a minibatch and the rest do not exist.
        algorithm: Packs one rank's sequences: `algorithm_1`, `first_fit_decreasing`,
            `padded_static`, or a function like them.
        balance: Spreads one minibatch over the ranks: `longest_processing_time`,
            `karmarkar_karp`, or a function like them.
        costs: What the ranks are balanced by, where that is not `sizes`: say FLOPs, while the
            capacity is in tokens.
        k_min: Least number of micro-batches for a rank, where it has that many sequences.
        equal_counts: Give the ranks of a minibatch the same number of sequences, to within one.
        equal_micro_batches: Give the ranks of a minibatch the same number of micro-batches, for
            trainers whose micro-batches meet in collectives. See `pack_equally`.

    Returns:
        Positions in `sizes`: `packed[minibatch][rank][micro_batch]`. Every position occurs once.
        A rank without sequences has no micro-batches, or only empty ones with
        `equal_micro_batches`. Empty for no sequences.

    Raises:
        OversizedSequence: A sequence is larger than the capacity.
        PackingError: A size or cost is not a positive integer, `costs` has another length than
            `sizes`, or `capacity`, `ranks`, `minibatches` or `k_min` is below one.
    """
    sizes = checked_sizes("sizes", sizes)
    capacity = checked_capacity(sizes, capacity)
    if costs is None:
        costs = sizes
    else:
        costs = checked_sizes("costs", costs)
        if len(costs) != len(sizes):
            raise PackingError(f"costs has {len(costs)} values for {len(sizes)} sizes")
    ranks = checked_count("ranks", ranks)
    minibatches = checked_count("minibatches", minibatches)
    k_min = checked_count("k_min", k_min)

    packed: PackedStep = []
    for run in equal_runs(len(sizes), min(minibatches, len(sizes))):
        first = run.start
        shares = balance(costs[first : run.stop], ranks, equal_counts)
        # Ascending positions, so that ties in size do not depend on the balancer.
        shares = [[first + i for i in sorted(share)] for share in shares]
        share_sizes = [[sizes[i] for i in share] for share in shares]
        if equal_micro_batches:
            batches = pack_equally(share_sizes, capacity, k_min, algorithm)
        else:
            batches = [algorithm(own, capacity, k_min) for own in share_sizes]
        packed.append(
            [
                [[share[i] for i in batch] for batch in own]
                for share, own in zip(shares, batches, strict=True)
            ]
        )
    return packed


def pack_equally(
    share_sizes: Sequence[Sequence[int]],
    capacity: int,
    k_min: int = 1,
    algorithm: Packer = algorithm_1,
) -> list[list[list[int]]]:
    """Pack every rank's sequences into the same number of micro-batches.

    Ranks that need fewer than the most pack again with `k_min` at that number, until all agree:
    what trainers do by exchanging their counts. It goes on for as long as `algorithm` answers
    with more than it is asked for (say, a multiple of the pipeline stages). A rank with fewer
    sequences than that number gets empty micro-batches at the end: it has nothing to compute
    there, but takes part in the collectives.

    Args:
        share_sizes: For each rank the sizes of its sequences.
        capacity: Most that the sizes in one micro-batch may sum to.
        k_min: Least number of micro-batches, where some rank has that many sequences.
        algorithm: As in `pack`. The number must not fall below `k_min` with enough sequences.

    Returns:
        For each rank its micro-batches, as positions in its own sizes.

    Raises:
        OversizedSequence: A sequence is larger than the capacity; its position is the rank's own.
        PackingError: A size is not a positive integer, or `capacity` or `k_min` is below one.
    """
    packed = [algorithm(sizes, capacity, k_min) for sizes in share_sizes]
    while True:
        # At most one micro-batch per sequence, so the number cannot rise forever.
        most = max(map(len, packed), default=0)
        settled = True
        for rank, sizes in enumerate(share_sizes):
            if len(packed[rank]) < min(most, len(sizes)):
                packed[rank] = algorithm(sizes, capacity, most)
                settled = settled and len(packed[rank]) <= most
        if settled:
            break
    for own in packed:
        own.extend([] for _ in range(most - len(own)))
    return packed
