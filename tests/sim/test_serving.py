"""Requests through servers alone, held against queueing theory where theory is exact.

One server that runs one rollout at a time, whose prefill takes as long as a decode step, serves a
request of L tokens in exactly L steps, first come first served: M/G/1 under Poisson arrivals. A
server without limit whose steps take the same time however many rollouts share them serves each
request as if it were alone: M/G/infinity. Several servers with the least loaded chosen at arrival
are not M/G/c, so that is not tested.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import t as student_t

from areal_sched import Limits
from areal_sim.costs import ServerCost
from areal_sim.serving import Served, serve
from tests.sim.setups import MS, NS_PER_S, costs, server_cost, setup

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

STEP_NS = MS
BATCHES = 40
CONFIDENCE = 0.999


def served(
    arrival_ns: Ints, tokens: Ints, cost: ServerCost, *, servers: int = 1, running: int = 1
) -> Served:
    made = setup(
        Limits(train_batch_rollouts=1),
        servers=servers,
        max_running_rollouts=running,
        costs=costs(cost),
    )
    return serve(made, arrival_ns, np.ones_like(tokens), tokens)


def poisson(rng: np.random.Generator, per_s: float, count: int) -> Ints:
    """Arrivals of a Poisson process, in whole nanoseconds."""
    gaps_ns = rng.exponential(NS_PER_S / per_s, count)
    return np.cumsum(np.rint(gaps_ns)).astype(np.int64)


def interval(values: Floats) -> tuple[float, float]:
    """Confidence interval of the mean, from batch means; the first batch is start-up."""
    size = len(values) // BATCHES
    means = values[: size * BATCHES].reshape(BATCHES, size).mean(axis=1)[1:]
    half = student_t.ppf((1 + CONFIDENCE) / 2, len(means) - 1) * means.std(ddof=1)
    half /= np.sqrt(len(means))
    return float(means.mean() - half), float(means.mean() + half)


Draw = Callable[[np.random.Generator, int], Ints]

SERVICES: dict[str, Draw] = {
    "M/D/1": lambda rng, count: np.full(count, 100),
    "M/M/1, nearly": lambda rng, count: rng.geometric(1 / 100, count),
    "M/G/1, short and long": lambda rng, count: rng.choice([20, 420], count, p=[0.8, 0.2]),
    "M/G/1, lognormal": lambda rng, count: np.clip(
        np.rint(rng.lognormal(4.2, 0.8, count)), 1, 2000
    ).astype(np.int64),
}


@pytest.mark.parametrize("utilisation", [0.3, 0.7])
@pytest.mark.parametrize("service", list(SERVICES))
def test_one_server_waits_as_pollaczek_and_khinchine_say(service: str, utilisation: float) -> None:
    """E[wait] = lambda E[S^2] / (2 (1 - rho)); and each request as Lindley's recursion says."""
    rng = np.random.default_rng(20_240_524)
    count = 40_000
    tokens = SERVICES[service](rng, count)
    service_ns = tokens * STEP_NS
    per_s = utilisation / (float(service_ns.mean()) / NS_PER_S)
    arrival_ns = poisson(rng, per_s, count)
    result = served(arrival_ns, tokens, server_cost(base_ns=STEP_NS, prefill_base_ns=STEP_NS))

    free_ns, finish_ns = 0, []
    for arrival, needed in zip(arrival_ns.tolist(), service_ns.tolist(), strict=True):
        free_ns = max(free_ns, arrival) + needed
        finish_ns.append(free_ns)
    assert result.finish_ns.tolist() == finish_ns

    # The sample's own moments: what is tested is the queue, not the generator of the lengths.
    second = float((service_ns / NS_PER_S) @ (service_ns / NS_PER_S)) / count
    expected_s = per_s * second / (2 * (1 - utilisation))
    waited_s = result.latency_s - service_ns / NS_PER_S
    low, high = interval(waited_s)
    assert low <= expected_s <= high, (low, expected_s, high)
    assert high - low < 0.6 * expected_s, "too wide an interval to say anything"


@pytest.mark.parametrize("service", ["M/D/1", "M/G/1, lognormal"])
def test_a_server_without_limit_holds_as_many_as_little_says(service: str) -> None:
    """M/G/infinity: the number in system is Poisson with mean and variance lambda E[S].

    A request of L tokens takes (L - 1) decode steps, its first token coming with a prefill that
    takes no time, and before it up to a step until the running one ends: on average between none
    and one step longer, which widens the interval.
    """
    rng = np.random.default_rng(7)
    count = 60_000
    tokens = SERVICES[service](rng, count) * 10
    service_s = (tokens - 1) * STEP_NS / NS_PER_S
    per_s = 12 / float(service_s.mean())
    arrival_ns = poisson(rng, per_s, count)
    result = served(arrival_ns, tokens, server_cost(base_ns=STEP_NS), running=1_000_000)
    assert np.all(result.latency_s >= service_s)
    assert np.all(result.latency_s < service_s + STEP_NS / NS_PER_S)

    # Looked at on a grid of times, from the first quarter on and up to the last arrival.
    times = np.linspace(arrival_ns[-1] / 4, arrival_ns[-1], 20_000)
    came = np.searchsorted(arrival_ns, times, side="right")
    left = np.searchsorted(np.sort(result.finish_ns), times, side="right")
    number = (came - left).astype(float)
    expected = per_s * float(service_s.mean())
    low, high = interval(number)
    assert low - per_s * STEP_NS / NS_PER_S <= expected <= high
    low, high = interval((number - number.mean()) ** 2)
    assert low <= expected <= high
    assert high - low < expected


def test_servers_take_turns_when_all_are_equally_loaded() -> None:
    """Four at once on two servers that run one at a time: two rounds."""
    tokens = np.full(4, 10, np.int64)
    cost = server_cost(base_ns=STEP_NS, prefill_base_ns=STEP_NS)
    result = served(np.zeros(4, np.int64), tokens, cost, servers=2)
    assert result.finish_ns.tolist() == [10 * MS, 10 * MS, 20 * MS, 20 * MS]
    assert (result.busy_ns, result.servers, result.makespan_ns) == (40 * MS, 2, 20 * MS)


def test_busy_time_is_the_work_done() -> None:
    """What a server that runs one at a time is busy for is the sum of all service times."""
    rng = np.random.default_rng(3)
    tokens = rng.integers(1, 50, 500)
    cost = server_cost(base_ns=STEP_NS, prefill_base_ns=STEP_NS)
    result = served(poisson(rng, 100.0, 500), tokens, cost, servers=3)
    assert result.busy_ns == int(tokens.sum()) * STEP_NS
    assert np.all(result.finish_ns - result.arrival_ns >= tokens * STEP_NS)


@pytest.mark.parametrize(
    ("arrival_ns", "tokens", "said"),
    [
        ([], [], "no requests"),
        ([5, 4], [1, 1], "ascending"),
        ([-1, 4], [1, 1], "negative"),
        ([0], [0], "nothing to generate"),
        ([0], [1 << 50], "KV tokens"),
    ],
)
def test_requests_that_cannot_be_served(
    arrival_ns: list[int], tokens: list[int], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        served(np.array(arrival_ns, np.int64), np.array(tokens, np.int64), server_cost())
