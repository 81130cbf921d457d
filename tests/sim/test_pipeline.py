"""The pipeline's time against one that is walked pass by pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from areal_sim.costs.pipeline import FORWARD_SHARE, forward_s, one_f_one_b_s

slots = st.lists(st.floats(0.01, 10.0), min_size=0, max_size=12)


def walked(rank: list[float], stages: int) -> float:
    """One pass after the other, by its recursion: when does a pass of a stage end?"""
    count = len(rank)
    ends: dict[tuple[str, int, int], float] = {}

    def plan(stage: int) -> list[tuple[str, int]]:
        warm_up = min(count, stages - 1 - stage)
        passes = [("forward", i) for i in range(warm_up)]
        for i in range(count):
            passes += [("forward", warm_up + i)] if warm_up + i < count else []
            passes += [("backward", i)]
        return passes

    plans = [plan(stage) for stage in range(stages)]

    def end(stage: int, position: int) -> float:
        kind, micro = plans[stage][position]
        key = (kind, stage, micro)
        if key not in ends:
            waits = [end(stage, position - 1)] if position else [0.0]
            other = stage - 1 if kind == "forward" else stage + 1
            if 0 <= other < stages:
                waits.append(end(other, plans[other].index((kind, micro))))
            share = FORWARD_SHARE if kind == "forward" else 1 - FORWARD_SHARE
            ends[key] = max(waits) + share * rank[micro]
        return ends[key]

    return max((end(stage, 2 * count - 1) for stage in range(stages)), default=0.0) if count else 0


@given(ranks=st.lists(slots, min_size=1, max_size=4), stages=st.integers(1, 5))
def test_it_is_the_time_of_walking_through_all_passes(
    ranks: list[list[float]], stages: int
) -> None:
    expected = [walked(rank, stages) for rank in ranks]
    assert one_f_one_b_s(ranks, stages) == pytest.approx(expected)


@given(rank=slots.filter(bool), stages=st.integers(1, 8))
def test_between_the_busiest_stage_and_one_after_the_other(rank: list[float], stages: int) -> None:
    [time_s] = one_f_one_b_s([rank], stages)
    assert sum(rank) - 1e-9 <= time_s <= stages * sum(rank) + 1e-9
    # The last stage begins after all others have had the first forward pass, and so at the end.
    ends = FORWARD_SHARE * rank[0] + (1 - FORWARD_SHARE) * rank[-1]
    assert time_s >= sum(rank) + (stages - 1) * ends - 1e-9


def test_unequal_micro_batches_take_longer_than_equal_ones() -> None:
    unequal, equal = [1.0, 9.0] * 8, [5.0] * 16
    assert forward_s(unequal, 4) == 80 + 3 * 9
    [slow], [fast] = one_f_one_b_s([unequal], 4), one_f_one_b_s([equal], 4)
    assert fast == pytest.approx(5.0 * (16 + 3))
    assert slow > 1.2 * fast
