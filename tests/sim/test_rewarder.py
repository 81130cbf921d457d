"""Reward workers are a first come, first served queue: M/M/c and G/G/c, held to both."""

from __future__ import annotations

import math
from heapq import heapreplace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from areal_sim.alarm import Alarm
from areal_sim.clock import Clock
from areal_sim.rewarder import Rewarder

NS_PER_S = 10**9


def rewarded(workers: int, arrival_ns: list[int], service_ns: list[int]) -> dict[int, int]:
    """When each reward is computed, by the rewarder; times in the order of arrival."""
    env = Clock()
    done: dict[int, int] = {}
    left = iter(service_ns)
    rewarder = Rewarder(
        env,
        workers,
        lambda: next(left),
        lambda rollout_id: done.__setitem__(rollout_id, env.now),
        lambda: None,
    )
    position = 0

    def arrive() -> None:
        nonlocal position
        while position < len(arrival_ns) and arrival_ns[position] <= env.now:
            rewarder.submit(position)
            position += 1
        if position < len(arrival_ns):
            alarm.at(arrival_ns[position])

    alarm = Alarm(env, arrive)
    alarm.at(arrival_ns[0])
    env.run()
    return done


def kiefer_wolfowitz(workers: int, arrival_ns: list[int], service_ns: list[int]) -> dict[int, int]:
    """The same by the recursion: whoever is free first takes the next."""
    free_ns = [0] * workers
    done = {}
    for number, (arrival, needed) in enumerate(zip(arrival_ns, service_ns, strict=True)):
        done[number] = max(free_ns[0], arrival) + needed
        heapreplace(free_ns, done[number])
    return done


@given(
    workers=st.integers(1, 4),
    customers=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30)), min_size=1, max_size=40),
)
def test_any_arrivals_and_services(workers: int, customers: list[tuple[int, int]]) -> None:
    arrival_ns = np.cumsum([gap for gap, _ in customers]).tolist()
    service_ns = [needed for _, needed in customers]
    expected = kiefer_wolfowitz(workers, arrival_ns, service_ns)
    assert rewarded(workers, arrival_ns, service_ns) == expected


def test_rewards_are_told_in_the_order_in_which_they_are_done() -> None:
    done = rewarded(2, [0, 0, 0, 5], [10, 3, 4, 1])
    assert list(done.items()) == [(1, 3), (2, 7), (3, 8), (0, 10)]


@pytest.mark.parametrize("workers", [1, 3, 10])
def test_poisson_arrivals_wait_as_erlang_says(workers: int) -> None:
    """M/M/c: P(wait) by Erlang's C formula, E[wait] = P(wait) / (c mu - lambda).

    Within 4 and 8 %, which is a few standard errors of so many correlated customers.
    """
    rng = np.random.default_rng(11)
    count, load = 150_000, 0.8
    per_s = load * workers
    arrival_ns = np.cumsum(np.rint(rng.exponential(NS_PER_S / per_s, count)).astype(int)).tolist()
    service_ns = np.rint(rng.exponential(NS_PER_S, count)).astype(int).tolist()
    done = rewarded(workers, arrival_ns, service_ns)
    waited = [done[i] - arrival_ns[i] - service_ns[i] for i in range(count)]
    share = sum(wait > 0 for wait in waited) / count
    offered = per_s
    last = offered**workers / math.factorial(workers) / (1 - load)
    waits = last / (sum(offered**k / math.factorial(k) for k in range(workers)) + last)
    assert share == pytest.approx(waits, rel=0.04)
    assert np.mean(waited) / NS_PER_S == pytest.approx(waits / (workers - per_s), rel=0.08)
