"""Random fault schedules: a hundred of them hold, and what breaks is told with its seed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from areal_sched import RolloutFailed, TrainStepFailed
from areal_sched.fold_events import EVENT_FOLDS
from areal_sched.state import ClusterState
from areal_sim.config.fault_schedule import KINDS
from benchmarks import fault_runs, fault_schedules
from benchmarks.fault_runs import case_of, outcome_of
from benchmarks.variations import schedulers


def test_a_hundred_seeds_break_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert fault_schedules.main(["--seeds", "98", "--jobs", "1"]) == 0
    told = capsys.readouterr().out
    assert "98 fault schedules" in told
    assert "Broken: 0." in told
    assert "again:" not in told


def test_the_cases_are_of_all_kinds() -> None:
    cases = [case_of(seed) for seed in range(98)]
    assert {case.path for case in cases} == set(schedulers())
    kinds = Counter(fault.fault for case in cases for fault in case.setup.faults.schedule)
    assert set(kinds) == set(KINDS)
    at = [[fault.at_s for fault in case.setup.faults.schedule] for case in cases]
    assert any(len(set(times)) < len(times) for times in at), "never two at one instant"
    assert {case.setup.colocated for case in cases} == {True, False}


def test_a_seed_gives_the_same_case_and_outcome() -> None:
    assert str(case_of(5)) == str(case_of(5)) != str(case_of(12))
    assert outcome_of(5) == outcome_of(5)


def test_a_broken_law_is_told_with_its_seed_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fold = EVENT_FOLDS[TrainStepFailed]

    def forgetful(state: ClusterState, event: Any) -> None:
        fold(state, event)
        if state.ready:
            state.failed += 1

    monkeypatch.setitem(EVENT_FOLDS, TrainStepFailed, forgetful)
    assert fault_schedules.main(["--first", "10", "--seeds", "20", "--jobs", "1"]) == 1
    told = capsys.readouterr().out
    complaints = [line for line in told.splitlines() if line.startswith("seed ")]
    assert 0 < len(complaints) < 20
    assert "TrainStepFailed(" in complaints[0]
    seed = int(complaints[0].split()[1])
    assert 10 <= seed < 30
    assert f"    again: python -m benchmarks.fault_schedules --seed {seed}\n" in told
    assert "20 fault schedules" in told
    assert f"Broken: {len(complaints)}." in told

    assert fault_schedules.main(["--seed", str(seed)]) == 1
    again = capsys.readouterr()
    assert f"seed {seed}: " in again.out
    assert "schedule = [" in again.out
    assert "LawBroken" in again.err
    monkeypatch.undo()
    assert fault_schedules.main(["--seed", str(seed)]) == 0
    assert "no law broken" in capsys.readouterr().out


def test_counts_that_only_the_state_keeps_are_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    fold = EVENT_FOLDS[RolloutFailed]

    def forgetful(state: ClusterState, event: Any) -> None:
        fold(state, event)
        state.open_groups += 1

    monkeypatch.setitem(EVENT_FOLDS, RolloutFailed, forgetful)
    broken = [outcome.broken for outcome in map(outcome_of, range(20)) if outcome.broken]
    assert any("the state does not keep to: assert state.open_groups ==" in b for b in broken)


def test_a_run_that_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_runs, "MOST_EVENTS", 5)
    assert "no end in sight" in outcome_of(3).broken


@pytest.mark.parametrize("wrong", [["--seeds", "0"], ["--jobs", "0"], ["--first", "-1"]])
def test_numbers_out_of_range_are_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        fault_schedules.main(wrong)
    assert exit_.value.code == 2
