"""Phases: by hand, and the same from a journal as from the live recorder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.phases import PHASE_KEYS, distributions, phases
from analysis.recorder import RunRecorder, read_run
from analysis.summary import summarise
from areal_sched import LoadWeights, Phase, RolloutsInterrupted, TimerFired, WeightsLoaded
from tests.analysis.by_hand import FACTS, recorder, rollout
from tests.analysis.made_up_parts import LOAD_NS, REWARD_NS
from tests.analysis.made_up_run import MadeUpRun

S = 10**9


def interrupted(server_id: int, rollouts: int) -> RolloutsInterrupted:
    progress = tuple((i, 1) for i in range(rollouts))
    return RolloutsInterrupted(server_id=server_id, weight_version=1, progress=progress)  # type: ignore[arg-type]


def load(server_id: int) -> LoadWeights:
    return LoadWeights(server_id=server_id, weight_version=1, mode="interrupt")  # type: ignore[arg-type]


def by_hand() -> RunRecorder:
    """Two steps of 50 s and none of them start-up; nothing is longer than it has to be."""
    made = recorder(
        {
            0: [("generate", 30 * S), ("load", 4 * S), ("generate", 66 * S)],
            1: [("load", 2 * S), ("idle", 98 * S)],
        },
        [
            ("idle", 20 * S),
            ("minibatch", 10 * S),
            ("minibatch", 10 * S),
            ("publish", 10 * S),
            ("save", 5 * S),
            ("proximal", 15 * S),
            ("minibatch", 30 * S),
        ],
    )
    times = ((0, 20, 21), (10, 40, 45))
    for step, end_s in enumerate((50, 100)):
        batch = []
        for i, (start, finish, ready) in enumerate(times):
            batch.append(
                rollout(
                    2 * step + i,
                    start_ns=start * S,
                    finish_ns=finish * S,
                    ready_ns=ready * S,
                    train_ns=45 * S,
                    settled_ns=end_s * S,
                    consumed_version=step,
                    generated_tokens=100 * (i + 1),
                )
            )
        made.settled(batch)
        made.settled([rollout(10 + step, Phase.DROPPED, settled_ns=end_s * S)])
    made.handled(50 * S, TimerFired(timer_id=0), (load(0), load(1)))  # type: ignore[arg-type]
    made.handled(53 * S, interrupted(0, 3), ())
    made.handled(54 * S, WeightsLoaded(server_id=1, weight_version=1), ())  # type: ignore[arg-type]
    made.handled(60 * S, interrupted(1, 1), ())
    made.ended(100 * S)
    return made


def test_by_hand() -> None:
    told = phases(by_hand())
    assert list(told) == [key.name for key in PHASE_KEYS]
    known = {key: x for key, x in told.items() if x is not None and not key.startswith("gpu_sh")}
    assert known == {
        "trainer_s.idle": 10.0,
        "trainer_s.minibatch": 25.0,
        "trainer_s.proximal": 7.5,
        "trainer_s.publish": 5.0,
        "trainer_s.save": 2.5,
        "load_weights_s.mean": 3.0,
        # Server 1 had loaded before it was interrupted for another reason.
        "interruption_s.mean": 3.0,
        "reward_s.mean": 3.0,
        "reward_s.p99": pytest.approx(5.0),
        "response_s.mean": 25.0,
        "response_s.p99": pytest.approx(29.7, abs=0.4),
        "response_s_per_token": 100 / 600,
        "response_tokens.mean": 150.0,
        "response_tokens.p99": pytest.approx(200.0),
        "interruptions_per_step": 2.0,
        "recomputed_per_step": 0.0,
        "discarded_share": 2 / 6,
    }
    assert told["gpu_share.decode"] == pytest.approx(2 * 96 / 700)
    shares = [x for key, x in told.items() if key.startswith("gpu_share.")]
    assert sum(x or 0.0 for x in shares) == pytest.approx(1.0)


def test_a_run_without_a_finished_step_has_none() -> None:
    made = recorder({0: [("generate", 5)]}, [("idle", 5)])
    assert set(phases(made).values()) == {None}
    told = distributions(made)
    assert len(told.step_s) == len(told.response_s) == len(told.lag) == 0
    assert phases(RunRecorder(FACTS))["reward_s.mean"] is None


def test_the_made_up_costs_are_found_again(areal_run: MadeUpRun) -> None:
    told = phases(areal_run.recorder)
    assert told["reward_s.mean"] == REWARD_NS / S
    servers = areal_run.facts.servers
    mean = (LOAD_NS + S // 10 * (servers - 1) / 2) / S
    assert told["load_weights_s.mean"] == pytest.approx(mean, rel=0.05)
    assert told["trainer_s.publish"] == pytest.approx(6.0)
    assert told["trainer_s.save"] == pytest.approx(4.0)
    assert told["interruption_s.mean"] == 0.0, "the made-up cluster interrupts at once"
    assert (told["discarded_share"] or 0) > 0.05


def test_the_start_up_is_left_out(areal_run: MadeUpRun) -> None:
    summary = summarise(areal_run.recorder, areal_run.now_ns, 1.0, "")
    steady = summary["steps"] - summary["transient_steps"]
    assert 0 < steady < summary["steps"]
    told = distributions(areal_run.recorder)
    assert len(told.step_s) == steady
    assert float(np.mean(told.step_s)) == pytest.approx(summary["step_time_s"]["mean"])
    assert float(np.mean(told.lag)) == pytest.approx(summary["lag"]["mean"])
    assert len(told.lag) == len(told.response_s) == sum(summary["lag"]["histogram"].values())
    trained = float(told.response_tokens.sum()) / float(told.step_s.sum())
    assert trained == pytest.approx(summary["effective_throughput_tokens_per_s"])
    of_step = sum(told.trainer_s_per_step.values())
    assert of_step == pytest.approx(summary["step_time_s"]["mean"]), "the trainer tells of it all"


@pytest.mark.parametrize("name", ["areal_run", "synchronous_run"])
def test_a_journal_gives_what_the_live_recorder_has(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    run: MadeUpRun = request.getfixturevalue(name)
    assert phases(read_run(run.write(tmp_path / "j"))) == phases(run.recorder)
