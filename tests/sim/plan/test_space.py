"""Candidates: what fits, and what a configuration makes of it."""

from __future__ import annotations

import random

import pytest

from areal_real.config.read import parse_config as parse_real
from areal_sim.build import setup_of
from areal_sim.config import parse_config
from areal_sim.plan import Question, offers
from areal_sim.plan.base import config_of, toml_of
from areal_sim.plan.estimate import Estimator
from areal_sim.plan.infeasible import fits
from areal_sim.plan.real import real_tables
from areal_sim.plan.space import Space
from tests.sim.plan.questions import small

QUESTIONS = {
    "small": small(),
    "one GPU type of two": small(gpus=offers(["16xA100-80GB", "8xH100"]), objective="cost"),
    "large": Question(model="32b", gpus=offers(["128xH800"]), task="code"),
    "odd batch": small(prompts_per_step=15, group_size=3),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_candidate_can_be_simulated_and_trained(name: str) -> None:
    question = QUESTIONS[name]
    estimator = Estimator(question)
    offer = question.gpus[0]
    assert offer.count is not None
    everyone = list(estimator.all(Space(question, offer.gpu, offer.count)))
    assert everyone
    for estimate in random.Random(1).sample(everyone, min(40, len(everyone))):
        candidate = estimate.candidate
        config = config_of(question, candidate)
        assert config.servers == candidate.servers
        assert config.data_parallel_ranks == candidate.data_parallel
        assert config.gpus == candidate.gpus
        setup_of(config)  # it fits
        text = toml_of(question, candidate) + real_tables(question, candidate)
        assert parse_config(text) == config
        if not candidate.colocated:
            real = parse_real(text)
            assert real.gpus_needed == candidate.generation_gpus + candidate.training_gpus
            assert real.train_batch_rollouts == question.train_batch_rollouts


def test_what_fits_has_a_candidate_and_what_does_not_has_none() -> None:
    question = small(model="7b", schedulers=("areal",))
    estimator = Estimator(question)
    answers = set()
    for gpus in range(1, 9):
        found = list(estimator.all(Space(question, "A100-40GB", gpus)))
        assert bool(found) == fits(question, "A100-40GB", gpus), gpus
        answers.add(bool(found))
    assert answers == {True, False}


def test_nothing_is_admitted_beyond_eta() -> None:
    space = Space(small(), "H100", 8)
    batch = small().train_batch_rollouts
    for scheduler, eta, in_flight in space.schedules():
        assert scheduler in ("areal", "one_step_off")
        assert in_flight <= (eta + 1) * batch
