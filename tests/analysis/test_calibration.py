"""Fits give back the coefficients that made the data, and say which they cannot know."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from analysis.calibration.calibrate import calibrate
from analysis.calibration.client import Samples, collect
from analysis.calibration.engine import NAMES, Part, fit_engine
from analysis.calibration.least_squares import fit
from analysis.calibration.rewards import reward_times, workload
from analysis.calibration.trainer import TrainerLayout, fit_trainer
from analysis.errors import AnalysisError
from analysis.recorder import RunRecorder
from areal_sched import commands as c
from areal_sched import events as e
from areal_sched.ids import GroupId, RolloutId, ServerId, WeightVersion
from areal_sched.journal import Entry, Measured
from areal_sched.limits import Limits
from areal_sched.measurements import EngineSteps, TrainerSpan
from areal_sched.packing import pack
from tests.sim.setups import Ran, costs, drawn_lengths, setup, simulate, trainer_cost

MS = 1_000_000


# ---- least squares -------------------------------------------------------------------------------


def test_coefficients_are_found_in_spite_of_outliers() -> None:
    rng = np.random.default_rng(1)
    design = np.stack([np.ones(400), rng.integers(1, 50, 400), rng.integers(1, 4000, 400)], axis=1)
    true = np.array([2.0, 0.1, 0.001])
    target = design @ true * rng.normal(1, 0.01, 400)
    target[::40] *= 1.5
    found = fit("x", ("a", "b", "c"), design, target, target.mean() * np.ones(400))
    for coefficient, value in zip(found.coefficients, true, strict=True):
        # Scaled up so that the sum of the outliers is in them, too.
        assert coefficient.value == pytest.approx(value * (1 + found.tail), rel=0.05)
        assert coefficient.determined
    assert (design @ [x.value for x in found.coefficients]).sum() == pytest.approx(target.sum())
    assert found.median_error < 0.03
    assert found.explained > 0.7


def test_what_the_data_do_not_vary_is_not_determined() -> None:
    design = np.stack([np.ones(50), np.full(50, 32.0), np.zeros(50)], axis=1)
    target = np.linspace(0.99, 1.01, 50)
    found = fit("x", ("base", "per_rollout", "never"), design, target, target)
    never = found.coefficients[2]
    assert (never.value, never.determined) == (0, False)
    assert math.isinf(never.standard_error)
    # Base and rollouts cannot be told apart; their sum is right all the same.
    assert found["base"] + 32 * found["per_rollout"] == pytest.approx(1, rel=0.01)
    assert not all(x.determined for x in found.coefficients[:2])


def test_nothing_to_fit_to_is_said() -> None:
    with pytest.raises(ValueError, match="engine: nothing to fit to"):
        fit("engine", ("a",), np.zeros((0, 1)), np.zeros(0), np.zeros(0))


# ---- engine --------------------------------------------------------------------------------------

COSTS = dict(zip(NAMES, (0.003, 0.0001, 2e-7, 0.002, 0.0005, 2e-5), strict=True))


def test_an_engine_is_found_from_its_steps(made_up_recorder: RunRecorder) -> None:
    rng = np.random.default_rng(2)
    now_ns = 0
    busy = [(k * 400 * MS, k * 400 * MS + 100 * MS) for k in range(200)]
    for start_ns, end_ns in busy:  # the trainer works a quarter of the time
        made_up_recorder.measured(span(start_ns, end_ns))
    for _ in range(3000):
        kind = "prefill" if rng.random() < 0.2 else "decode"
        rollouts = int(rng.integers(1, 33))
        context, new = int(rng.integers(100, 4000)), int(rng.integers(10, 2000))
        seconds = (
            COSTS["prefill_base_s"]
            + COSTS["prefill_per_rollout_s"] * rollouts
            + COSTS["prefill_per_token_s"] * new
            if kind == "prefill"
            else COSTS["decode_base_s"]
            + COSTS["decode_per_rollout_s"] * rollouts
            + COSTS["decode_per_kv_token_s"] * context
        )
        end_ns = ends(now_ns, seconds * 1e9)
        made_up_recorder.measured(
            EngineSteps(
                server_id=ServerId(0),
                activity=kind,
                start_ns=now_ns,
                end_ns=end_ns,
                forward_ns=0,
                steps=1,
                rollouts=rollouts,
                context_tokens=context,
                new_tokens=new if kind == "prefill" else 0,
            )
        )
        now_ns = end_ns
    found = fit_engine([Part(made_up_recorder, 0, now_ns)])
    assert found.slowdown == pytest.approx(0.5, abs=0.01)
    for name, value in COSTS.items():
        assert found.steps[name] == pytest.approx(value, rel=0.05), name


def ends(now_ns: int, work_ns: float) -> int:
    """When a step is done that is half as fast again while the trainer works, 100 of 400 ms."""
    time_ns = float(now_ns)
    while work_ns > 0:
        place = time_ns % (400 * MS)
        slowness = 1.5 if place < 100 * MS else 1.0
        left_ns = (100 * MS if place < 100 * MS else 400 * MS) - place
        spent_ns = min(left_ns, work_ns * slowness)
        time_ns += spent_ns
        work_ns -= spent_ns / slowness
    return round(time_ns)


def test_a_run_without_steps_is_refused(made_up_recorder: RunRecorder) -> None:
    with pytest.raises(ValueError, match="nothing of the steps"):
        fit_engine([Part(made_up_recorder, 0, 10**12)])


def span(start_ns: int, end_ns: int, activity: str = "minibatch") -> TrainerSpan:
    return TrainerSpan(
        activity=activity,  # type: ignore[arg-type]
        weight_version=WeightVersion(1),
        start_ns=start_ns,
        end_ns=end_ns,
        waiting_ns=0,
        micro_batches=1,
    )


# ---- trainer, workload and rewards: from a simulated run -----------------------------------------

LIMITS = Limits(
    train_batch_rollouts=24,
    group_size=3,
    eta=2,
    max_lag=None,
    max_rollouts_in_flight=48,
    max_failures_per_group=3,
)
TRAINER = {
    "update_base_s": 0.02,
    "update_per_token_s": 3e-4,
    "forward_base_s": 0.005,
    "forward_per_token_s": 1e-4,
    "optimizer_s": 0.011,
}


@pytest.fixture(scope="module")
def simulated() -> Ran:
    made = setup(
        LIMITS,
        steps=20,
        costs=costs(trainer=trainer_cost(0.004, **TRAINER), publish_s=0.03, load_s=0.01),
        source=drawn_lengths(7, lambda rng: int(rng.integers(1, 60)), 5),
        layout=lambda sizes: pack(sizes, capacity=200, ranks=1, minibatches=2),
        max_response_tokens=60,
        reward_workers=2,
        reward_service_s=0.008,
    )
    return simulate(made)


def test_a_trainer_is_found_from_its_spans(simulated: Ran) -> None:
    layout = TrainerLayout(
        data_parallel=1, pipeline_parallel=1, minibatches=2, micro_batch_tokens=200
    )
    part = Part(simulated.recorder, 0, simulated.now_ns)
    found = fit_trainer([(part, layout)])
    assert found.minibatch["base_s"] == pytest.approx(TRAINER["update_base_s"], rel=1e-3)
    assert found.minibatch["per_token_s"] == pytest.approx(TRAINER["update_per_token_s"], rel=1e-3)
    assert found.proximal is not None
    assert found.proximal["per_token_s"] == pytest.approx(TRAINER["forward_per_token_s"], rel=1e-3)
    assert found.optimizer is not None
    assert found.optimizer["optimizer_s"] == pytest.approx(TRAINER["optimizer_s"], rel=1e-6)
    assert found.publish is not None
    assert found.publish["publish_s"] == pytest.approx(0.03, rel=1e-6)
    assert found.save is None


def test_a_part_without_a_step_is_refused(simulated: Ran) -> None:
    layout = TrainerLayout(
        data_parallel=1, pipeline_parallel=1, minibatches=2, micro_batch_tokens=200
    )
    with pytest.raises(ValueError, match="no training step"):
        fit_trainer([(Part(simulated.recorder, 0, 1), layout)])


def test_rewards_are_timed_worker_by_worker(simulated: Ran) -> None:
    times = reward_times(simulated.entries, workers=2)
    assert times is not None
    assert times.mean_s == pytest.approx(0.008, rel=1e-6)
    assert times.variation == pytest.approx(0, abs=1e-6)
    assert reward_times([], workers=2) is None


def test_lengths_are_those_of_whole_groups(simulated: Ran) -> None:
    table = workload([Part(simulated.recorder, 0, simulated.now_ns)] * 2)
    assert (table.groupby("group_id").size() == 3).all()
    assert set(table["prompt_tokens"]) == {5}
    assert table["response_tokens"].between(1, 60).all()
    once = workload([Part(simulated.recorder, 0, simulated.now_ns)])
    assert len(table) == 2 * len(once)
    with pytest.raises(ValueError, match="no group"):
        workload([Part(simulated.recorder, 0, 1)])


# ---- the client ----------------------------------------------------------------------------------


def entry(now_ms: float, event: e.Event, *commands: c.Command) -> Entry:
    return Entry(0, round(now_ms * MS), event, commands, None)


def steps(start_ms: float, end_ms: float, kind: str, rollouts: int, count: int = 1) -> Measured:
    measured = EngineSteps(
        server_id=ServerId(0),
        activity=kind,  # type: ignore[arg-type]
        start_ns=round(start_ms * MS),
        end_ns=round(end_ms * MS),
        forward_ns=0,
        steps=count,
        rollouts=rollouts,
        context_tokens=0,
        new_tokens=0,
    )
    return Measured(0, round(end_ms * MS), measured)


def test_the_ways_between_scheduler_and_engine_are_timed() -> None:
    timer = e.TimerFired(timer_id=0)  # type: ignore[arg-type]
    joined = e.ServerJoined(
        server_id=ServerId(0),
        max_running_rollouts=1,
        kv_cache_tokens=100,
        weight_version=WeightVersion(0),
    )
    started = c.StartRollouts(
        group_id=GroupId(0), rollout_ids=(RolloutId(0), RolloutId(1)), server_id=ServerId(0)
    )
    load = c.LoadWeights(server_id=ServerId(0), weight_version=WeightVersion(1), mode="interrupt")
    finished = e.RolloutFinished(
        rollout_id=RolloutId(0),
        weight_version=WeightVersion(0),
        generated_tokens=3,
        finish_reason="stop",
    )
    stopped = e.RolloutsInterrupted(
        server_id=ServerId(0), weight_version=WeightVersion(0), progress=((RolloutId(1), 2),)
    )
    loaded = e.WeightsLoaded(server_id=ServerId(0), weight_version=WeightVersion(1))
    items = [
        entry(0, joined),
        entry(1, timer, started),  # one place: the second rollout is held back
        steps(7, 9, "prefill", 1),
        steps(9, 13, "decode", 1, 2),
        entry(16, finished),  # 3 ms on its way; now the second one is sent
        steps(21, 23, "prefill", 1),
        entry(25, timer, load),
        steps(23, 31, "decode", 1, 4),
        entry(35, stopped),
        entry(40, loaded),
    ]
    samples = Samples()
    collect(samples, items, 0, 100 * MS)
    times = samples.times()
    # Steps take 2 ms on average, of which a request waits half: 6 - 1 and 5 - 1.
    assert times.dispatch_s == pytest.approx(0.0045)
    assert times.report_s == pytest.approx(0.003)
    assert times.stop_s == pytest.approx(0.005)  # 31 - 25, less half a step
    assert times.report_per_rollout_s == pytest.approx(0.001)  # 4 ms for one, 3 of them usual
    assert times.dispatch_per_rollout_s is None
    assert times.samples[0] == 2


# ---- journals that cannot be fitted to -----------------------------------------------------------


def test_a_simulated_journal_is_refused(simulated: Ran, tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match=r"no 'layout'.*real runs"):
        calibrate([simulated.save(tmp_path)])
