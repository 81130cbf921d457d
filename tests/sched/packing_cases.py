"""What the packing tests draw and share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from hypothesis import strategies as st

from areal_sched.packing import (
    Balancer,
    Packer,
    algorithm_1,
    first_fit_decreasing,
    karmarkar_karp,
    longest_processing_time,
    padded_static,
)
from benchmarks import reference_packing as reference

ANY_FIT: list[Packer] = [algorithm_1, first_fit_decreasing]
PACKERS: list[Packer] = [*ANY_FIT, padded_static]
BALANCERS: list[Balancer] = [longest_processing_time, karmarkar_karp]


# What `packings` draws.
Case: TypeAlias = tuple[list[int], int, int]
PLAIN: dict[object, Any] = {
    algorithm_1: reference.algorithm_1,
    first_fit_decreasing: reference.first_fit_decreasing,
    karmarkar_karp: reference.karmarkar_karp,
    longest_processing_time: reference.longest_processing_time,
}


@st.composite
def packings(draw: st.DrawFn, most: int = 60) -> Case:
    """Sizes, capacity, k_min; small ranges on purpose, for many ties and exact fits."""
    capacity = draw(st.sampled_from([1, 2, 7, 12, 30, 100, 32768]))
    sizes = draw(st.lists(st.integers(1, capacity), max_size=most))
    return sizes, capacity, draw(st.integers(1, 12))


def small_costs(most: int) -> st.SearchStrategy[list[int]]:
    return st.integers(1, 40).flatmap(
        lambda top: st.lists(st.integers(1, top), min_size=1, max_size=most)
    )


def makespan(costs: Sequence[int], shares: Sequence[Sequence[int]]) -> int:
    return max(sum(costs[i] for i in share) for share in shares)
