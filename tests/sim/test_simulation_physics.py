"""What must hold of any such system: faster parts never make it slower, and work costs its time.

Where answers and servers are matched once, before anything runs (a synchronous step with places
for its whole batch), a faster part can only end things earlier: exact. Asynchronous runs have
scheduling anomalies (Graham, 1969): an answer that ends earlier may send the next one to another
server, and batches are made of other answers. So there the time is held to a tolerance, `ANOMALY`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from areal_sched import Limits, LoadWeights, RolloutsInterrupted, WeightsLoaded
from areal_sim.costs import FittedCosts, ServerCost
from areal_sim.faults import Faults
from areal_sim.simulation import Setup
from tests.sim.setups import (
    MS,
    NS_PER_S,
    Listed,
    Ran,
    costs,
    drawn_lengths,
    server_cost,
    setup,
    simulate,
    trainer_cost,
)

ANOMALY = 1.02
"""An asynchronous run of 12 steps may get longer by so much where a part gets faster."""


def drawn(seed: int, longest: int = 200) -> Listed:
    return drawn_lengths(seed, lambda rng: int(rng.integers(1, longest)), prompt=9)


def mixed(seed: int, **changes: Any) -> Setup:
    """Servers of middling speed, a trainer about as fast, loads that take a while."""
    rng = np.random.default_rng(seed)
    cost = server_cost(
        base_ns=float(rng.integers(1_000, 9_000)),
        rollout_ns=float(rng.integers(0, 300)),
        kv_token_ns=float(rng.integers(0, 10)),
        prefill_base_ns=float(rng.integers(0, 9_000)),
        prefill_token_ns=float(rng.integers(0, 300)),
        prefill_pair_ns=float(rng.integers(0, 3)),
    )
    known: dict[str, Any] = {
        "servers": int(rng.integers(1, 4)),
        "steps": 12,
        "max_running_rollouts": int(rng.integers(2, 9)),
        "kv_cache_tokens": int(rng.integers(210, 1500)),
        "prefill_chunk_tokens": int(rng.integers(9, 300)),
        "costs": costs(cost, trainer_cost(float(rng.integers(1, 900)) * 1e-6), load_s=40e-6),
        "source": drawn(seed),
        "reward_service_s": 3e-6,
        "reward_workers": 4,
    }
    limits = Limits(train_batch_rollouts=16, eta=2, max_rollouts_in_flight=32)
    return setup(limits, **known | changes)


def with_server(made: Setup, **factors: float) -> Setup:
    """The same set-up, coefficients of its servers times these factors."""
    assert isinstance(made.costs, FittedCosts)
    old = made.costs.server_cost
    new = {name: round(getattr(old, name) * factor) for name, factor in factors.items()}
    cost = dataclasses.replace(made.costs, server_cost=dataclasses.replace(old, **new))
    return dataclasses.replace(made, costs=cost)


COEFFICIENTS = [field.name for field in dataclasses.fields(ServerCost)]

shrunk = st.dictionaries(st.sampled_from(COEFFICIENTS), st.floats(0.05, 1.0), min_size=1)
"""More bandwidth (all decode coefficients), or a faster part of it, or of prefill."""


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), factors=shrunk)
def test_faster_servers_never_slow_a_synchronous_run(seed: int, factors: dict[str, float]) -> None:
    """Each step ends no later than before, exactly."""
    made = mixed(seed)
    before = simulate(made, "synchronous").step_ends_ns()
    after = simulate(with_server(made, **factors), "synchronous").step_ends_ns()
    assert all(b <= a for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("path", ["areal", "in_flight", "bounded_lag", "one_step_off"])
@pytest.mark.parametrize("seed", range(4))
def test_faster_servers_do_not_slow_an_asynchronous_run(path: str, seed: int) -> None:
    """Half the decode time, hence twice the bandwidth: no longer than before, but for anomalies."""
    made = mixed(seed)
    if path == "bounded_lag":
        made = dataclasses.replace(made, limits=dataclasses.replace(made.limits, max_lag=3))
    decode = {name: 0.5 for name in COEFFICIENTS if name.startswith("decode")}
    times = [simulate(x, path).now_ns for x in (made, with_server(made, **decode))]
    assert times[1] <= times[0] * ANOMALY


def test_twice_the_bandwidth_takes_half_the_time_where_only_decoding_takes_time() -> None:
    made = setup(Limits(train_batch_rollouts=16), source=drawn(1), costs=costs(server_cost()))
    decode = {name: 0.5 for name in COEFFICIENTS if name.startswith("decode")}
    times = [simulate(x, "synchronous").now_ns for x in (made, with_server(made, **decode))]
    assert times[1] * 2 == times[0]


@pytest.mark.parametrize(
    "faults",
    [
        {"slow_network_factor": 5.0},
        {"straggler_share": 0.5, "straggler_slowdown": 3.0},
        {"straggler_share": 1.0, "straggler_slowdown": 1.5, "slow_network_factor": 2.0},
    ],
    ids=lambda faults: ", ".join(faults),
)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("path", ["synchronous", "areal", "in_flight", "one_step_off"])
def test_a_slow_network_and_stragglers_never_help(path: str, seed: int, faults: Any) -> None:
    """Synchronous runs exactly; the others but for anomalies."""
    made = mixed(seed, servers=3)
    before = simulate(made, path).now_ns
    after = simulate(dataclasses.replace(made, faults=Faults(**faults)), path).now_ns
    assert after >= (before if path == "synchronous" else before / ANOMALY)
    if path == "synchronous":
        assert after > before


def test_a_server_that_is_slow_takes_so_many_times_as_long() -> None:
    made = setup(
        Limits(train_batch_rollouts=8),
        servers=2,
        faults=Faults(straggler_share=0.5, straggler_slowdown=3.0),
    )
    assert simulate(made, "synchronous").step_ends_ns() == [27 * MS * n for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("unit", ["rollout", "group"])
@pytest.mark.parametrize("seed", range(6))
def test_areal_with_eta_0_is_synchronous(seed: int, unit: str) -> None:
    """The same batches, made by the same weights, at the same times."""
    limits = Limits(train_batch_rollouts=16, group_size=4, eta=0, max_rollouts_in_flight=64)
    made = dataclasses.replace(mixed(seed), limits=limits)
    ours, theirs = (simulate(made, path, unit=unit) for path in ("areal", "synchronous"))
    assert ours.batches() == theirs.batches()
    assert ours.step_ends_ns() == theirs.step_ends_ns()
    columns = ("rollout_id", "group_id", "first_version", "last_version", "finish_ns", "server_id")
    for name in columns:
        mine = ours.recorder.trajectories[name].tolist()
        assert mine == theirs.recorder.trajectories[name].tolist(), name
    trained = ours.recorder.settlement("consumed_version")
    first = ours.recorder.trajectories["first_version"]
    assert np.array_equal(trained[trained >= 0], first[trained >= 0])
    assert ours.spans("recomputed_tokens") == theirs.spans("recomputed_tokens")


# ---- what an update costs ----------------------------------------------------------------------

LENGTHS = [20, 90, 140, 200, 60, 300]
PROMPT = 7


def one_update(mode: str, path: str = "areal", **changes: Any) -> Ran:
    """Batches of one: the answer of 20 tokens is trained while the others run, and so is one more.

    One server, 1 ms a decode step however many; prefill costs 10 microseconds and 2 a token. The
    first step ends at 50 ms, in the midst of four answers, and the run ends with the second.
    """
    known: dict[str, Any] = {
        "steps": 2,
        "source": Listed(lambda group, sample: LENGTHS[min(group, 5)], PROMPT),
        "costs": costs(
            server_cost(prefill_base_ns=10_000, prefill_token_ns=2_000),
            trainer_cost(0.030),
            load_s=0.004,
        ),
    }
    limits = Limits(train_batch_rollouts=1, eta=8, max_rollouts_in_flight=4)
    made = setup(limits, **known | changes)
    return simulate(made, path, **({} if path == "in_flight" else {"mode": mode}))


def finish_ns(run: Ran, rollout_id: int) -> int:
    rows = run.recorder.trajectories["rollout_id"].tolist()
    return int(run.recorder.trajectories["finish_ns"][rows.index(rollout_id)])


def test_an_interruption_costs_exactly_the_prefill_of_what_was_in_flight() -> None:
    """Against an update in place, and in tokens and time.

    The prefill that recomputes the contexts also makes one token of each answer, so a decode step
    is saved: the others end later by the prefill less that step.
    """
    kept, dropped = one_update("in_place"), one_update("interrupt")
    (report,) = [e.event for e in dropped.entries if isinstance(e.event, RolloutsInterrupted)]
    assert len(report.progress) == 4
    # Of each context, the newest token has never been in a KV cache.
    contexts = [PROMPT + tokens for _, tokens in report.progress]
    assert dropped.spans("recomputed_tokens") == sum(contexts) - 4
    prefill_ns = 10_000 + 2_000 * sum(contexts)
    second = 1  # the answer of 90 tokens is the next to end and to be trained
    assert finish_ns(dropped, second) - finish_ns(kept, second) == prefill_ns - 1 * MS
    assert dropped.now_ns - kept.now_ns == prefill_ns - 1 * MS
    assert dropped.spans("recompute_ns") == 2_000 * (sum(contexts) - 4)


@pytest.mark.parametrize("path", ["areal", "in_flight", "bounded_lag"])
def test_an_update_in_place_recomputes_nothing(path: str) -> None:
    made = mixed(3, kv_cache_tokens=1 << 30)
    if path == "bounded_lag":
        made = dataclasses.replace(made, limits=dataclasses.replace(made.limits, max_lag=3))
    run = simulate(made, path, **({} if path == "in_flight" else {"mode": "in_place"}))
    assert sum(isinstance(e.event, WeightsLoaded) for e in run.entries) > 10
    assert (run.spans("recomputed_tokens"), run.spans("recompute_ns")) == (0, 0)
    assert run.interrupted() == 0
    again = one_update("in_place")
    assert again.spans("recomputed_tokens") == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_draining_update_interrupts_nothing_and_loads_an_empty_server(seed: int) -> None:
    made = mixed(seed, kv_cache_tokens=1 << 30, max_running_rollouts=64)
    run = simulate(made, "areal", mode="drain")
    assert run.interrupted() == 0
    assert run.spans("recomputed_tokens") == 0
    loads = [c for e in run.entries for c in e.commands if isinstance(c, LoadWeights)]
    assert loads
    # Nobody's tokens are of two versions. (With a queue on the server an answer would say so that
    # came before the update and was begun after it: a scheduler cannot know when that was.)
    trajectories = run.recorder.trajectories
    done = trajectories["finish_ns"] >= 0
    first, last = trajectories["first_version"][done], trajectories["last_version"][done]
    assert np.array_equal(first, last)


def test_interrupting_makes_data_fresher_than_draining_and_training_no_later() -> None:
    """With updates that cost nothing, whoever does not wait for long answers is done first."""
    free = {"kv_cache_tokens": 1 << 30, "servers": 2, "max_running_rollouts": 64}
    times = {}
    for mode in ("in_place", "drain"):
        made = mixed(5, **free)
        assert isinstance(made.costs, FittedCosts)
        cheap = dataclasses.replace(made.costs, load_s=0.0)
        times[mode] = simulate(dataclasses.replace(made, costs=cheap), "areal", mode=mode).now_ns
    assert times["in_place"] < times["drain"]


# ---- nothing is lost on the way ----------------------------------------------------------------


@pytest.mark.parametrize("path", ["areal", "in_flight", "one_step_off", "synchronous"])
@pytest.mark.parametrize("seed", range(3))
def test_servers_generate_what_answers_have(path: str, seed: int) -> None:
    """Tokens of spans add up to those of answers: whole ones, and what the others have at the end.

    No server is lost here, so none is generated twice.
    """
    run = simulate(mixed(seed), path)
    executor = run.simulation.executor
    here = sum(
        server.engine.progress(request)
        for server in executor.servers.values()
        for request in (*server.engine.running.values(), *server.engine.waiting)
    )
    ended = run.recorder.trajectories["finish_ns"] >= 0
    whole = int(run.recorder.trajectories["generated_tokens"][ended].sum())
    held = sum(r.generated_tokens for r in run.simulation.state.interrupted.values())
    prefilling = sum(
        request.generated_tokens
        for server in executor.servers.values()
        for request in (*server.engine._prefilling, *server._late)
    )
    assert run.spans("generated_tokens") == whole + here + held + prefilling


def test_a_run_that_ends_in_midst_of_a_long_answer_counts_its_tokens() -> None:
    """One answer of 10 tokens is trained at 9 ms; the other is at its tenth token then."""
    made = setup(
        Limits(train_batch_rollouts=1, eta=1, max_rollouts_in_flight=2),
        steps=1,
        source=Listed(lambda group, sample: (10, 1000)[min(group, 1)]),
        costs=costs(server_cost(), trainer_cost(0.0205)),
    )
    run = simulate(made)
    assert run.now_ns == 29.5 * MS
    assert run.spans("generated_tokens") == 10 + 30 == 10 + 1 + int(29.5)


def test_time_is_what_the_step_takes_and_no_more() -> None:
    """The books of the smallest run: 9 decode steps, then 20 ms of training."""
    made = setup(
        Limits(train_batch_rollouts=1), steps=1, costs=costs(server_cost(), trainer_cost(0.02))
    )
    run = simulate(made, "synchronous")
    assert run.now_ns == 29 * MS
    spans = run.recorder.server_spans
    assert spans["start_ns"].tolist() == [0, 9 * MS]
    assert spans["end_ns"].tolist() == [9 * MS, 29 * MS]
    assert run.recorder.trainer_spans["end_ns"].tolist() == [9 * MS, 29 * MS]
    assert run.now_ns / NS_PER_S == 0.029
