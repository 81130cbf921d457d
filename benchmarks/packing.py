"""How fast packing is, against plain versions of the same algorithms.

    python -m benchmarks.packing

Every row runs both versions in this process and insists that their results are identical. Times
are the best of a few runs; the ratio is what carries over to another machine.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from areal_sched import packing
from areal_sched.packing import Balancer, Packer
from benchmarks import reference_packing as plain

# The run behind the tables of AReaL (arXiv 2505.24298): 8192 sequences a step in 4 PPO
# minibatches, 32,768 tokens a micro-batch, prompts up to 1024 and responses up to 27,648 tokens.
SEQUENCES = 8192
MINIBATCHES = 4
CAPACITY_TOKENS = 32_768
PROMPT_CAP_TOKENS = 1_024
RESPONSE_CAP_TOKENS = 27_648
# Lognormal responses give the heavy tail; these two put the mean of a whole sequence near 8000.
RESPONSE_LOG_MEAN = 8.65
RESPONSE_LOG_SIGMA = 0.85
RANKS = 16


class Row(NamedTuple):
    """One line of the table: the same work on `sizes`, plain and fast."""

    name: str
    sizes: Sequence[int]
    slow: Callable[[], list[Any]]
    fast: Callable[[], list[Any]]
    micro_batches: Callable[[list[Any]], int] | None  # None: it balances ranks


def sequence_tokens(count: int, seed: int) -> list[int]:
    """Heavy-tailed sequence lengths, prompt and response together, in tokens."""
    draw = random.Random(seed)
    return [
        draw.randint(32, PROMPT_CAP_TOKENS)
        + min(
            RESPONSE_CAP_TOKENS,
            1 + int(draw.lognormvariate(RESPONSE_LOG_MEAN, RESPONSE_LOG_SIGMA)),
        )
        for _ in range(count)
    ]


def best_ms(work: Callable[[], list[Any]], repeats: int) -> tuple[float, list[Any]]:
    """The shortest of `repeats` runs in milliseconds, and what they returned."""
    best, result = float("inf"), []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return best * 1e3, result


def rows(sizes: Sequence[int]) -> list[Row]:
    """Packers on all of `sizes`, balancers on one minibatch of them, and the whole step."""
    minibatch = sizes[: -(-len(sizes) // MINIBATCHES)]
    packers: list[tuple[Packer, Packer]] = [
        (plain.algorithm_1, packing.algorithm_1),
        (plain.first_fit_decreasing, packing.first_fit_decreasing),
    ]
    balancers: list[tuple[Balancer, Balancer]] = [
        (plain.longest_processing_time, packing.longest_processing_time),
        (plain.karmarkar_karp, packing.karmarkar_karp),
    ]
    table = [
        Row(
            fast.__name__,
            sizes,
            partial(slow, sizes, CAPACITY_TOKENS, 1),
            partial(fast, sizes, CAPACITY_TOKENS, 1),
            len,
        )
        for slow, fast in packers
    ]
    table += [
        Row(
            f"{fast.__name__}, {RANKS} ranks",
            minibatch,
            partial(slow, minibatch, RANKS, False),
            partial(fast, minibatch, RANKS, False),
            None,
        )
        for slow, fast in balancers
    ]
    table.append(
        Row(
            f"pack, {MINIBATCHES} minibatches x {RANKS} ranks",
            sizes,
            lambda: plain.pack(sizes, CAPACITY_TOKENS, RANKS, MINIBATCHES),
            lambda: packing.pack(
                sizes, capacity=CAPACITY_TOKENS, ranks=RANKS, minibatches=MINIBATCHES
            ),
            lambda packed: sum(len(own) for by_rank in packed for own in by_rank),
        )
    )
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its table.

    Args:
        arguments: Command line; the process's own by default.

    Returns:
        0. A result that differs from the plain version's is an AssertionError.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packing", description=__doc__)
    parser.add_argument("--sequences", type=int, default=SEQUENCES, help="per training step")
    parser.add_argument("--seed", type=int, default=1, help="of the sequence lengths")
    parser.add_argument("--repeats", type=int, default=7, help="runs of the fast version")
    options = parser.parse_args(arguments)
    if options.sequences < 1 or options.repeats < 1:
        parser.error("--sequences and --repeats must be at least 1")

    sizes = sequence_tokens(options.sequences, options.seed)
    print(
        f"{len(sizes)} sequences, mean {sum(sizes) / len(sizes):.0f} tokens, "
        f"longest {max(sizes)}, capacity {CAPACITY_TOKENS}, seed {options.seed}"
    )
    print(
        f"{'algorithm':<36}{'sequences':>10}{'plain ms':>10}{'ours ms':>9}{'ratio':>7}"
        f"{'micro-batches':>15}{'lower bound':>13}"
    )
    for row in rows(sizes):
        slow_ms, expected = best_ms(row.slow, min(3, options.repeats))
        fast_ms, found = best_ms(row.fast, options.repeats)
        if found != expected:
            raise AssertionError(f"{row.name} differs from its plain version")
        batches = bound = "-"
        if row.micro_batches is not None:
            batches = str(row.micro_batches(found))
            bound = str(-(-sum(row.sizes) // CAPACITY_TOKENS))
        print(
            f"{row.name:<36}{len(row.sizes):>10}{slow_ms:>10.1f}{fast_ms:>9.2f}"
            f"{slow_ms / fast_ms:>7.1f}{batches:>15}{bound:>13}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
