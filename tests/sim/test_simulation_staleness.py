"""Mean lag of an asynchronous run, held against its closed form.

docs/background/staleness.md derives it: C rollouts in flight, batches of B, utilisation rho of the
trainer, bound eta. Mean lag = min(eta, C / B + rho), and eta where the trainer is the bottleneck.
"""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from analysis.steps import steps_of
from analysis.summary import lags
from areal_sched import Limits
from tests.sim.setups import MS, NS_PER_S, Ran, costs, server_cost, setup, simulate, trainer_cost
from traces import LogNormalGroups, SyntheticWorkload, constant_prompts

SERVERS = 4
STEPS = 120
DOC = Path(__file__).resolve().parents[2] / "docs" / "background" / "staleness.md"

WORKLOAD = SyntheticWorkload(
    LogNormalGroups(mu=math.log(160), sigma_between=0.0, sigma_within=0.6),
    constant_prompts(1),
    seed=5,
    max_response_tokens=2000,
    max_prompt_tokens=1,
)


@cache
def mean_tokens() -> float:
    """Mean response of the workload."""
    return float(WORKLOAD.groups(0, 50_000, group_size=1, step=0).response_tokens.mean())


def per_s(in_flight: int) -> float:
    """X = C / D: an answer takes 1 ms for each token but the first, however many there are."""
    return in_flight / ((mean_tokens() - 1) * MS / NS_PER_S)


def asynchronous(
    in_flight: int,
    batch: int,
    utilisation: float,
    *,
    eta: int | None = None,
    reward_s: float = 0.0,
    path: str = "in_flight",
) -> Ran:
    """A run whose updates cost nothing; the trainer's step takes utilisation * B / X."""
    made = setup(
        Limits(train_batch_rollouts=batch, eta=eta, max_rollouts_in_flight=in_flight),
        servers=SERVERS,
        steps=STEPS,
        costs=costs(server_cost(base_ns=MS), trainer_cost(utilisation * batch / per_s(in_flight))),
        source=WORKLOAD,
        reward_workers=100_000,
        reward_service_s=reward_s,
    )
    return simulate(made, path)


def mean_lag(run: Ran) -> float:
    """Of the steady state: after a start-up of three lifetimes."""
    limits = run.setup.limits
    first = 10 + 3 * limits.max_rollouts_in_flight // limits.train_batch_rollouts
    return float(lags(run.recorder, steps_of(run.recorder), first).mean())


@pytest.mark.parametrize("utilisation", [0.2, 0.8])
@pytest.mark.parametrize(("in_flight", "batch"), [(32, 64), (64, 64), (100, 30), (512, 64)])
def test_a_generation_bound_run(in_flight: int, batch: int, utilisation: float) -> None:
    """C / B + rho, to 1.5 %."""
    measured = mean_lag(asynchronous(in_flight, batch, utilisation))
    assert measured == pytest.approx(in_flight / batch + utilisation, rel=0.015)


@pytest.mark.parametrize(("in_flight", "batch"), [(64, 16), (256, 64)])
def test_a_trainer_near_its_limit_makes_batches_queue(in_flight: int, batch: int) -> None:
    """Beyond the formula by at most Kingman's 1 / (2 B (1 - rho)), and not below it by 1 %."""
    rho = 0.95
    beyond = mean_lag(asynchronous(in_flight, batch, rho)) - (in_flight / batch + rho)
    assert -0.01 * in_flight / batch <= beyond <= 1 / (2 * batch * (1 - rho))


@pytest.mark.parametrize("path", ["in_flight", "areal"])
@pytest.mark.parametrize(
    ("in_flight", "batch", "utilisation", "eta"),
    [(64, 16, 1.5, 8), (64, 64, 1.2, 3), (256, 64, 0.8, 2), (64, 64, 2.0, 0)],
)
def test_where_eta_binds_the_mean_lag_is_eta(
    path: str, in_flight: int, batch: int, utilisation: float, eta: int
) -> None:
    """Either the trainer is the bottleneck, or eta keeps C from being reached. To 0.5 %.

    For `areal` an update interrupts, which makes generation slower: so the trainer is given half
    the speed.
    """
    slower = 1.0 if path == "in_flight" else 2.0
    run = asynchronous(in_flight, batch, slower * utilisation, eta=eta, path=path)
    assert mean_lag(run) == pytest.approx(eta, rel=0.005)


def test_a_bound_that_does_not_bind_changes_nothing() -> None:
    bounded = asynchronous(64, 16, 0.5, eta=8)
    assert bounded.batches() == asynchronous(64, 16, 0.5).batches()


def test_rewards_count_as_time_in_flight() -> None:
    """Rewards that take R hold X R more trajectories: C / B + rho + X R / B, to 1.5 %."""
    run = asynchronous(64, 32, 0.5, reward_s=0.2)
    expected = 64 / 32 + 0.5 + per_s(64) * 0.2 / 32
    assert mean_lag(run) == pytest.approx(expected, rel=0.015)


@pytest.mark.parametrize("utilisation", [0.3, 3.0])
@pytest.mark.parametrize("eta", [0, 1, 3])
def test_the_mean_lag_of_a_whole_run_never_exceeds_eta(eta: int, utilisation: float) -> None:
    """Exactly, from the first step on: at most eta B are unsettled when a step ends."""
    run = asynchronous(100, 30, utilisation, eta=eta)
    total = int(lags(run.recorder, steps_of(run.recorder)).sum())
    assert total <= eta * 30 * (STEPS - 1)
    assert eta == 0 or total > 0


def test_the_table_of_the_documentation_is_measured() -> None:
    """Each row of the page's table is what the simulator gives, to the digits printed.

    But for one in the last, since logarithms differ in their last bits from machine to machine.
    """
    row = re.compile(r"\| (\d+) \| (\d+) \| ([\d.]+) \| (\d+|none) \| ([\d.]+) \| ([\d.]+) \|")
    rows = row.findall(DOC.read_text(encoding="utf-8"))
    assert len(rows) >= 6
    for in_flight, batch, utilisation, eta, formula, simulated in rows:
        bound = None if eta == "none" else int(eta)
        c, b, rho = int(in_flight), int(batch), float(utilisation)
        expected = math.inf if bound is None else float(bound)
        if rho < 1:
            expected = min(expected, c / b + rho)
        assert f"{expected:.2f}" == formula
        measured = mean_lag(asynchronous(c, b, rho, eta=bound))
        assert measured == pytest.approx(float(simulated), abs=0.0151)


def test_the_workload_is_the_one_described() -> None:
    tokens = WORKLOAD.groups(0, 50_000, group_size=1, step=0).response_tokens
    assert 180 < mean_tokens() < 200
    assert 0.5 < np.std(np.log(tokens)) < 0.7
