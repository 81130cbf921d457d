"""Runs whose answers grow."""

from __future__ import annotations

from pathlib import Path

import pytest

from areal_sim.cli import main
from areal_sim.config import load_config, parse_config
from areal_sim.plan import growth
from areal_sim.plan.estimate import Estimator
from areal_sim.plan.growth import PARTS, plan_growth
from areal_sim.plan.space import Space
from tests.sim.plan.questions import ARGUMENTS, small

QUESTION = small(schedulers=("areal",), length_scale=0.05)


@pytest.mark.slow
def test_every_part_is_simulated_with_its_own_lengths(tmp_path: Path) -> None:
    found = plan_growth(QUESTION, 6.0, cache=tmp_path, jobs=1)
    assert len(found.factors) == PARTS
    assert list(found.factors) == sorted(found.factors)
    for seconds in found.step_s.values():
        assert list(seconds) == sorted(seconds)  # longer answers, longer steps
    assert found.one.hours == pytest.approx(
        sum(s * QUESTION.steps / PARTS for s in found.step_s[found.one.candidate]) / 3600
    )
    # A restart of ten minutes is too much for a run of twenty.
    assert found.two_hours > found.one.hours
    assert set(found.tomls) == {"plan.toml"}


@pytest.mark.parametrize("restart_s", [0.0, 1e6])
def test_a_second_split_is_taken_where_it_is_worth_the_restart(
    restart_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimates = Estimator(QUESTION).all(Space(QUESTION, "H100", 8))
    by_layout = {each.candidate.layout: each.candidate for each in estimates}
    early, late, *_ = by_layout.values()
    times = {early: (10.0, 20.0, 60.0, 90.0), late: (30.0, 30.0, 40.0, 50.0)}
    monkeypatch.setattr(growth, "RESTART_S", restart_s)
    found = growth.compare(QUESTION, 6.0, (1.6, 2.9, 4.1, 5.4), times)
    assert found.one.candidate == late
    assert found.one.hours * 3600 == pytest.approx(10 * (30 + 30 + 40 + 50))
    assert found.two is not None
    assert [stage.candidate for stage in found.two] == [early, late]
    assert [stage.steps for stage in found.two] == [20, 20]
    assert found.two[1].first_step == 20
    assert found.two_hours * 3600 == pytest.approx(10 * (10 + 20 + 40 + 50) + restart_s)
    expected = {"plan.toml"} if restart_s else {"plan-1.toml", "plan-2.toml"}
    assert set(found.tomls) == expected
    steps = [parse_config(text).workload.steps for text in found.tomls.values()]
    assert sum(steps) == QUESTION.steps


@pytest.mark.slow
def test_the_command_writes_configurations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*ARGUMENTS, "--growth", "2"]
    assert main(["plan", *arguments, "--quiet", "--out", str(tmp_path)]) == 0
    assert "one split: " in capsys.readouterr().out
    files = sorted(tmp_path.glob("*.toml"))
    assert sum(load_config(file).workload.steps for file in files) == 40
