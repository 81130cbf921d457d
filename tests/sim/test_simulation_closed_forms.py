"""Whole runs with constant lengths, held against their closed forms, to the nanosecond.

n answers of L tokens that start together on an idle server, behind prompts of p tokens, take

    G = d0 + d1 n p + d2 n p (p + 1) / 2                                 (prefill, first token)
      + (L - 1) (a + b n + c n p) + c n (L - 1) (L - 2) / 2              (the others)

with the coefficients of `ServerCost`: a, b, c of decode steps and d0, d1, d2 of prefill steps. T is
a training step, P publishing its weights, W loading them, R a reward, S saving and evaluating.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from areal_sched import Limits
from areal_sim.costs import ServerCost
from tests.sim.setups import (
    MS,
    NS_PER_S,
    Ran,
    constant_lengths,
    costs,
    server_cost,
    setup,
    simulate,
    trainer_cost,
)

COST = server_cost(
    base_ns=1000, rollout_ns=30, kv_token_ns=2, prefill_base_ns=700, prefill_token_ns=11,
    prefill_pair_ns=1,
)  # fmt: skip
PLAIN = server_cost(base_ns=MS)


def generation_ns(cost: ServerCost, n: int, tokens: int, prompt: int) -> int:
    """G of the module's text."""
    fs = cost.prefill_base_fs + cost.prefill_per_token_fs * n * prompt
    fs += cost.prefill_per_token_pair_fs * n * prompt * (prompt + 1) // 2
    step = cost.decode_base_fs + cost.decode_per_rollout_fs * n
    step += cost.decode_per_kv_token_fs * n * prompt
    fs += (tokens - 1) * step
    fs += cost.decode_per_kv_token_fs * n * (tokens - 1) * (tokens - 2) // 2
    return -(-fs // 10**6)


def periods(run: Ran) -> list[int]:
    """Times between ends of training steps."""
    return np.diff(run.step_ends_ns()).tolist()


def lasting(
    *, step_ns: int, publish_ns: int = 0, load_ns: int = 0, cost: ServerCost = COST, **more: Any
) -> Any:
    """Costs with these durations."""
    return costs(
        cost,
        trainer_cost(step_ns / NS_PER_S),
        publish_s=publish_ns / NS_PER_S,
        load_s=load_ns / NS_PER_S,
        **more,
    )


@pytest.mark.parametrize("servers", [1, 2, 4])
@pytest.mark.parametrize(("n", "tokens", "prompt"), [(1, 2, 1), (6, 50, 20), (3, 1, 7)])
def test_a_synchronous_step(servers: int, n: int, tokens: int, prompt: int) -> None:
    """Generation, reward, training, publishing and loading follow each other: G + R + T + P + W.

    Saving overlaps with the next generation. The first step has nothing to load.
    """
    g = generation_ns(COST, n, tokens, prompt)
    run = simulate(
        setup(
            Limits(train_batch_rollouts=n * servers),
            servers=servers,
            steps=5,
            costs=lasting(step_ns=9_000, publish_ns=500, load_ns=800),
            source=constant_lengths(tokens, prompt),
            reward_workers=n * servers,
            reward_service_s=300e-9,
            save_s=lambda version, _: 900e-9,
        ),
        "synchronous",
    )
    assert run.step_ends_ns()[0] == g + 300 + 9_000 + 500
    assert periods(run) == [g + 300 + 9_000 + 500 + 800] * 4


def test_a_synchronous_step_with_few_reward_workers() -> None:
    """One worker takes one reward after the other: B R instead of R."""
    run = simulate(
        setup(
            Limits(train_batch_rollouts=6),
            costs=lasting(step_ns=1_000),
            source=constant_lengths(50, 20),
            reward_service_s=300e-9,
        ),
        "synchronous",
    )
    assert periods(run) == [generation_ns(COST, 6, 50, 20) + 6 * 300 + 1_000] * 3


def test_a_synchronous_step_on_shared_gpus() -> None:
    """Colocated, GPUs change hands twice, and saving keeps them: G + T + P + W + S + 2 X."""
    run = simulate(
        setup(
            Limits(train_batch_rollouts=12),
            servers=2,
            colocated=True,
            costs=lasting(step_ns=9_000, publish_ns=500, load_ns=800, switch_s=70e-9),
            source=constant_lengths(50, 20),
            save_s=lambda version, _: 900e-9,
        ),
        "synchronous",
    )
    g = generation_ns(COST, 6, 50, 20)
    assert periods(run) == [g + 9_000 + 500 + 800 + 900 + 2 * 70] * 3


def test_answers_that_run_in_turns_take_as_many_rounds() -> None:
    """A server that runs m of its n answers at a time takes n / m rounds of G(m)."""
    run = simulate(
        setup(
            Limits(train_batch_rollouts=12),
            max_running_rollouts=4,
            costs=lasting(step_ns=1_000),
            source=constant_lengths(50, 20),
        ),
        "synchronous",
    )
    assert periods(run) == [3 * generation_ns(COST, 4, 50, 20) + 1_000] * 3


@pytest.mark.parametrize("load_ns", [0, 7_000])
@pytest.mark.parametrize("step_ns", [6_600, 60_000, 83_000, 90_000, 200_000])
def test_one_step_off_takes_the_longer_of_both(step_ns: int, load_ns: int) -> None:
    """Batch k + 1 is generated while step k trains, and loading waits for it: max(G + W, T + P).

    The training steps lie on both sides of G, and of G + W. None is shorter than W: then two
    loads would follow each other every other time, though the mean would be the same.
    """
    g = generation_ns(COST, 6, 50, 20)
    assert 83_000 + 500 < g < 90_000 + 500 < g + 7_000
    run = simulate(
        setup(
            Limits(train_batch_rollouts=12, eta=1),
            servers=2,
            steps=8,
            costs=lasting(step_ns=step_ns, publish_ns=500, load_ns=load_ns),
            source=constant_lengths(50, 20),
        ),
        "one_step_off",
    )
    assert periods(run)[2:] == [max(g + load_ns, step_ns + 500)] * 5


@pytest.mark.parametrize("batches", [1, 2, 4])
@pytest.mark.parametrize("step_ns", [MS, 20 * MS, 30 * MS, 45 * MS])
@pytest.mark.parametrize("path", ["areal", "in_flight"])
def test_asynchronous_steps_take_the_longer_of_both(path: str, step_ns: int, batches: int) -> None:
    """With C = k B in flight, weights that load at once, and eta large: max(G / k, T) a step.

    Constant lengths make waves: C answers end together every G, and make k batches, so the mean is
    over whole waves. Updates cost nothing: `in_flight` goes on, and with draining the servers are
    empty at the end of a wave.
    """
    batch = 8
    g = generation_ns(PLAIN, batch * batches, 61, 1)
    assert g == 60 * MS
    options = {} if path == "in_flight" else {"mode": "drain"}
    run = simulate(
        setup(
            Limits(train_batch_rollouts=batch, eta=40, max_rollouts_in_flight=batch * batches),
            steps=40,
            costs=lasting(cost=PLAIN, step_ns=step_ns),
            source=constant_lengths(61),
        ),
        path,
        **options,
    )
    waves = run.step_ends_ns()[8::batches]
    assert np.diff(waves).tolist() == [max(g, batches * step_ns)] * (len(waves) - 1)
