"""Balancing over ranks: equality with the plain algorithms and proven bounds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from areal_sched.packing import (
    Balancer,
    karmarkar_karp,
    longest_processing_time,
)
from benchmarks import reference_packing as reference
from tests.sched.packing_cases import (
    BALANCERS,
    PLAIN,
    makespan,
    small_costs,
)

# --- ranks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("equal_counts", [False, True])
@pytest.mark.parametrize("balancer", BALANCERS)
@given(
    costs=st.lists(st.integers(1, 30) | st.integers(1, 10**15), max_size=60),
    ranks=st.integers(1, 9),
)
def test_ranks_equal_the_plain_algorithm(
    balancer: Balancer, equal_counts: bool, costs: list[int], ranks: int
) -> None:
    before = list(costs)
    shares = balancer(costs, ranks, equal_counts)
    assert costs == before
    assert shares == PLAIN[balancer](costs, ranks, equal_counts)
    assert len(shares) == ranks
    assert sorted(i for share in shares for i in share) == list(range(len(costs)))
    if equal_counts:
        counts = [len(share) for share in shares]
        assert max(counts) - min(counts) <= 1


@given(costs=st.lists(st.integers(1, 10**6), max_size=80), ranks=st.integers(1, 9))
def test_ranks_differ_by_at_most_the_largest_cost(costs: list[int], ranks: int) -> None:
    for shares in (
        longest_processing_time(costs, ranks),
        karmarkar_karp(costs, ranks),
        karmarkar_karp(costs, ranks, equal_counts=True),
    ):
        loads = [sum(costs[i] for i in share) for share in shares]
        assert max(loads) - min(loads) <= max(costs, default=0)


@given(costs=small_costs(8), ranks=st.integers(2, 4))
def test_makespan_bounds(costs: list[int], ranks: int) -> None:
    optimum = reference.smallest_makespan(costs, ranks)
    for balancer in BALANCERS:
        found = makespan(costs, balancer(costs, ranks, False))
        assert optimum <= found
        assert 3 * ranks * found <= (4 * ranks - 1) * optimum
    found = makespan(costs, karmarkar_karp(costs, ranks))
    if ranks == 2:
        assert 6 * found <= 7 * optimum
    if len(costs) <= ranks + 2:
        assert found == optimum


@given(costs=small_costs(9), ranks=st.integers(2, 4))
def test_makespan_bound_with_equal_counts(costs: list[int], ranks: int) -> None:
    optimum = reference.smallest_makespan(costs, ranks, equal_counts=True)
    found = makespan(costs, karmarkar_karp(costs, ranks, equal_counts=True))
    k = -(-len(costs) // ranks)
    factorial = math.factorial(k)
    assert optimum <= found
    ratio_numerator = 2 * factorial - sum(math.factorial(i) for i in range(k))
    assert factorial * found <= ratio_numerator * optimum


def test_differencing_by_hand() -> None:
    # 8, 7, 6, 5, 4 on two ranks: 8-7=1, 6-5=1, 4-1=3, 3-1=2. Sums 16 and 14.
    costs = [8, 7, 6, 5, 4]
    assert [sum(costs[i] for i in s) for s in karmarkar_karp(costs, 2)] == [16, 14]
    assert longest_processing_time(costs, 2) == [[0, 3, 4], [1, 2]]
