"""Training steps and the start-up transient."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.recorder import RunRecorder
from analysis.steps import steady_state, steps_of, transient_steps
from areal_sched import Phase
from tests.analysis.by_hand import FACTS, rollout
from tests.analysis.made_up_run import MadeUpRun


def by_definition(values: list[int]) -> int:
    """MSER as the literature writes it, in floating point."""
    least = 1 if len(values) > 3 else 0
    errors = {
        cut: float(np.var(values[cut:])) / (len(values) - cut)
        for cut in range(least, len(values) // 2 + 1)
    }
    return min(errors, key=lambda cut: (errors[cut], cut))


@given(st.lists(st.integers(10**9, 10**12), min_size=1, max_size=40))
def test_mser_is_what_the_definition_gives(values: list[int]) -> None:
    assert transient_steps(values) == by_definition(values)


def test_mser_finds_a_slow_start() -> None:
    assert transient_steps([900, 700, 500, 310, 299, 301, 300, 302, 300, 298]) == 4
    assert transient_steps([300] * 10) == 1
    assert transient_steps([300] * 3) == 0
    assert transient_steps([900, 300]) == 1
    assert transient_steps([]) == 0
    assert transient_steps([100] * 6 + [900] * 6) == 6, "never more than half"


def test_steps_by_hand() -> None:
    recorder = RunRecorder(FACTS)

    def batch(first_id: int, version: int, train_ns: int, settled_ns: int) -> None:
        recorder.settled(
            [
                rollout(
                    first_id + i,
                    first_version=max(version - 1 - i, 0),
                    consumed_version=version - 1,
                    generated_tokens=10 * (first_id + i + 1),
                    interruptions=i,
                    reward=float(i),
                    train_ns=train_ns,
                    settled_ns=settled_ns,
                )
                for i in range(2)
            ]
        )

    batch(0, 1, 50, 100)
    recorder.settled([rollout(9, Phase.FAILED, settled_ns=120)])
    batch(2, 2, 120, 190)
    steps = steps_of(recorder)
    assert len(steps) == 2
    assert steps.weight_version.tolist() == [1, 2]
    assert steps.train_ns.tolist() == [50, 120]
    assert steps.step_ns.tolist() == [100, 90]
    assert steps.generated_tokens.tolist() == [30, 70]
    assert steps.prompt_tokens.tolist() == [200, 200]
    assert steps.lag_sum.tolist() == [0, 1]
    assert steps.lag_max.tolist() == [0, 1]
    assert steps.interruptions.tolist() == [1, 1]
    assert steps.reward_mean.tolist() == [0.5, 0.5]
    steady = steady_state(steps)
    assert (steady.first_step, steady.start_ns, steady.end_ns) == (1, 100, 190)


def test_no_steps() -> None:
    steps = steps_of(RunRecorder(FACTS))
    assert len(steps) == 0
    assert steady_state(steps).end_ns == 0


@pytest.mark.parametrize("name", ["areal_run", "synchronous_run"])
def test_steps_follow_each_other(name: str, request: pytest.FixtureRequest) -> None:
    run: MadeUpRun = request.getfixturevalue(name)
    steps = steps_of(run.recorder)
    assert steps.weight_version.tolist() == list(range(1, run.facts.steps + 1))
    assert (steps.train_ns[1:] >= steps.end_ns[:-1]).all()
    assert steps.end_ns[-1] == run.now_ns
    assert (steps.trajectories == run.facts.train_batch_rollouts).all()
