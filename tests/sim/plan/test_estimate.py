"""The closed form against the simulation, and against common sense."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from areal_sim.plan.estimate import Estimator
from areal_sim.plan.rounds import SECOND
from areal_sim.plan.search import Search
from areal_sim.plan.space import Space
from tests.sim.plan.questions import SMALL, small


def test_estimates_are_near_simulations(tmp_path: Path) -> None:
    question = small(gpus=small().gpus, schedulers=("areal", "one_step_off", "synchronous"))
    search = Search(question, cache=tmp_path)
    search.estimate()
    by_kind = {(e.candidate.scheduler, e.candidate.eta): e for e in reversed(search.estimates)}
    assert len(by_kind) == 5
    estimates = {estimate.candidate: estimate for estimate in by_kind.values()}
    for finding in search.simulate(estimates, SECOND, "all"):
        guess = estimates[finding.candidate].step_s
        assert guess == pytest.approx(finding.step_s, rel=0.3), str(finding.candidate)


def test_what_cannot_make_a_step_longer_does_not() -> None:
    estimator = Estimator(SMALL)
    space = Space(SMALL, "H100", 8)
    for estimate in estimator.all(space):
        candidate = estimate.candidate
        if candidate.scheduler != "areal" or candidate.eta == 0:
            continue
        fresher = estimator.of(space, candidate)
        assert fresher.step_s == pytest.approx(estimate.step_s)
        older = estimator.of(space, dataclasses.replace(candidate, eta=candidate.eta + 2))
        assert older.step_s <= estimate.step_s * 1.0001


def test_longer_answers_take_longer() -> None:
    short, long = (Estimator(small(length_scale=scale)) for scale in (0.3, 0.6))
    space = Space(SMALL, "H100", 8)
    for before, after in zip(short.all(space), long.all(space), strict=False):
        if before.candidate == after.candidate:
            assert after.generation_s > before.generation_s


def test_a_busy_gpu_costs_energy_and_every_gpu_money() -> None:
    estimator = Estimator(small(changes=("cluster.usd_per_gpu_hour=2.0",)))
    space = Space(SMALL, "H100", 8)
    for estimate in estimator.all(space):
        worth = estimator.worth(estimate)
        assert worth.cost_usd == pytest.approx(8 * worth.hours * 2.0)
        assert worth.gpu_hours == pytest.approx(8 * worth.hours)
        card = space.gpu
        low = 8 * (card.idle_watts + card.host_watts) * worth.hours / 1000
        high = 8 * (card.busy_watts + card.host_watts) * worth.hours / 1000
        assert low <= worth.energy_kwh <= high
