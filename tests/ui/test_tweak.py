"""What the sliders change, and what is said of it by estimate and by simulation."""

from __future__ import annotations

import dataclasses

import pytest

from areal_sim.plan import Infeasible, offers
from areal_sim.plan.base import config_of
from areal_sim.ui.look import (
    LEAST_STEPS,
    MOST_TRAJECTORIES,
    Looks,
    Numbers,
    changed,
    compare_estimates,
    compare_looks,
    cut,
    estimate,
    timeline,
)
from areal_sim.ui.start import Start, estimated
from areal_sim.ui.tweak import apply, choices, untouched
from tests.ui.cases import small


@pytest.fixture(scope="module")
def start() -> Start:
    return estimated(small())


@pytest.fixture(scope="module")
def looks() -> Looks:
    return Looks()


def test_it_begins_with_the_best_estimate(start: Start) -> None:
    assert start.base == start.estimates[0].candidate
    assert start.base.gpus == 16
    assert start.keeps_limits
    assert [x.step_s for x in start.estimates] == sorted(x.step_s for x in start.estimates)


def test_limits_that_nobody_keeps_are_said() -> None:
    assert not estimated(small(deadline_h=1e-4)).keeps_limits


def test_what_fits_nowhere_is_refused() -> None:
    with pytest.raises(Infeasible, match="H800"):
        estimated(small(model="32b", gpus=offers(["1xH800"])))


def test_sliders_that_were_not_moved_change_nothing(start: Start) -> None:
    question, candidate = apply(start, untouched(start))
    assert (question, candidate) == (start.question, start.base)


def test_every_value_of_every_slider_makes_a_configuration(start: Start) -> None:
    for scheduler in choices(start, start.base.scheduler).schedulers:
        own, free = untouched(start, scheduler), choices(start, scheduler)
        values: dict[str, tuple[object, ...]] = {
            "training_gpus": free.training_gpus,
            "eta": free.etas,
            "in_flight": free.in_flights,
            "nodes": free.nodes,
            "speed": (0.25, 8.0),
            "transport": ("disk", "collective"),
        }
        for field, options in values.items():
            if field not in ("speed", "transport"):
                assert options == tuple(sorted(options))  # type: ignore[type-var]
                assert getattr(own, field) in options
            for value in options:
                tweak = dataclasses.replace(own, **{field: value})  # type: ignore[arg-type]
                question, candidate = apply(start, tweak)
                config = config_of(question, candidate)
                assert config.servers == candidate.servers
                assert config.data_parallel_ranks == candidate.data_parallel
                assert estimate(question, candidate).step_s > 0


def test_a_schedule_without_a_choice_has_sliders_of_one_value(start: Start) -> None:
    free = choices(start, "synchronous")
    assert (len(free.training_gpus), free.etas, len(free.in_flights)) == (1, (0,), 1)


def test_other_nodes_generate_and_the_trainer_stays(start: Start) -> None:
    tweak = dataclasses.replace(untouched(start), nodes=4)
    candidate = apply(start, tweak)[1]
    assert candidate.training_gpus == start.base.training_gpus
    assert candidate.generation_gpus == 32 - candidate.training_gpus


def test_fewer_gpus_than_a_node_have_no_slider_for_nodes() -> None:
    few = estimated(small(gpus=offers(["4xH100"])))
    assert choices(few, few.base.scheduler).nodes == (1,)


def test_more_rollouts_than_eta_admits_are_cut(start: Start) -> None:
    tweak = dataclasses.replace(untouched(start), eta=1, in_flight=10_000)
    assert apply(start, tweak)[1].max_rollouts_in_flight == 2 * 128


def test_faster_disks_shorten_checkpoints_too(start: Start) -> None:
    own, faster = (dataclasses.replace(untouched(start), speed=x) for x in (1.0, 4.0))
    before, after = (config_of(*apply(start, x)).sim for x in (own, faster))
    assert after.evaluation.save_s == pytest.approx(before.evaluation.save_s / 4)
    rate = "disk_read_bytes_per_s"
    assert getattr(after.cost.factors, rate) == 4 * getattr(before.cost.factors, rate)
    told = dataclasses.replace(faster, transport="collective")
    network = config_of(*apply(start, told)).sim
    assert network.weights.transport == "collective"
    assert network.evaluation.save_s == before.evaluation.save_s


def test_known_numbers_change_as_two_looks_differ() -> None:
    known = Numbers(
        step_s=100.0,
        hours=10.0,
        cost_usd=1000.0,
        energy_kwh=50.0,
        gpu_hours=80.0,
        idle_generation=0.1,
        idle_training=0.3,
        lag=4.0,
    )
    before = dataclasses.replace(known, step_s=80.0, idle_generation=0.2, lag=2.0)
    after = dataclasses.replace(before, step_s=40.0, hours=5.0, idle_generation=0.0, lag=3.0)
    told = changed(known, before, after)
    assert (told.step_s, told.hours, told.lag) == (50.0, 5.0, 5.0)
    assert told.idle_generation == 0.0, "no share is below 0"
    assert told.idle_training == 0.3


@pytest.mark.parametrize(("gpus", "prompts"), [("16xH100", 32), ("64xH800", 512), ("16xH100", 512)])
def test_a_look_is_short_or_has_the_fewest_steps(gpus: str, prompts: int) -> None:
    question = small(gpus=offers([gpus]), prompts_per_step=prompts, group_size=16)
    begin = estimated(question)
    part, steps = cut(question, begin.base)
    batch = question.train_batch_rollouts // part
    assert batch * steps <= MOST_TRAJECTORIES or steps == LEAST_STEPS
    assert config_of(question, begin.base, (f"sim.slice={part}",)).sim.slice == part


def test_a_what_if_by_estimate_and_by_simulation(start: Start, looks: Looks) -> None:
    tweak = dataclasses.replace(untouched(start), nodes=4)
    question, candidate = apply(start, tweak)
    at_once = compare_estimates(start, question, candidate)
    assert at_once.look is None
    assert at_once.after.step_s < at_once.before.step_s
    told: list[int] = []
    simulated = compare_looks(
        looks, start, question, candidate, lambda progress: told.append(progress.steps)
    )
    assert told
    assert simulated.look is not None
    assert simulated.after.step_s < simulated.before.step_s
    assert simulated.after.gpu_hours == pytest.approx(32 * simulated.after.hours, rel=0.01)
    for shares in (simulated.shares_before, simulated.shares_after):
        assert sum(shares.values()) == pytest.approx(1.0)
    same = compare_looks(looks, start, start.question, start.base)
    assert same.after == same.before


def test_nothing_is_simulated_twice(
    start: Start, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compare_looks(looks, start, start.question, start.base)
    monkeypatch.setattr("areal_sim.ui.look._simulate", None)
    assert compare_looks(looks, start, start.question, start.base) == first


def test_a_look_that_is_given_up_leaves_the_next_one_free(start: Start, looks: Looks) -> None:
    def stop(_: object) -> None:
        raise InterruptedError

    tweak = dataclasses.replace(untouched(start), speed=0.5)
    question, candidate = apply(start, tweak)
    with pytest.raises(InterruptedError):
        compare_looks(looks, start, question, candidate, stop)
    assert compare_looks(looks, start, question, candidate).look is not None


def test_a_timeline_is_drawn(start: Start) -> None:
    assert timeline(start.question, start.base).startswith(b"\x89PNG")
