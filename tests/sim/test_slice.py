"""A slice of a run: a part of everything, at the speed of the whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from areal_sched.errors import ConfigError
from areal_sim.build import header_of, setup_of
from areal_sim.config import load_config
from areal_sim.rundir import simulate

CONFIG = Path("configs/paper/1.5b-areal.toml")


def test_a_slice_has_a_part_of_everything_and_the_costs_of_the_whole() -> None:
    whole, part = load_config(CONFIG), load_config(CONFIG, ["sim.slice=8"])
    one, eighth = setup_of(whole), setup_of(part)
    assert eighth.servers * 8 == one.servers
    assert eighth.limits.train_batch_rollouts * 8 == one.limits.train_batch_rollouts
    assert eighth.limits.max_rollouts_in_flight * 8 == one.limits.max_rollouts_in_flight
    assert len(eighth.layout([100] * 64)[0]) * 8 == whole.data_parallel_ranks
    assert eighth.costs == one.costs
    run = header_of(part, "part")["run"]
    assert run["gpus"] * 8 == whole.gpus
    assert run["generation_gpus"] + run["training_gpus"] + run["unused_gpus"] == run["gpus"]


def test_a_slice_takes_as_long_as_the_whole() -> None:
    changes = [
        "workload.prompts_per_step=64",
        "limits.max_rollouts_in_flight=1024",
        "workload.steps=12",
    ]
    whole, part = (
        simulate(load_config(CONFIG, [*changes, f"sim.slice={n}"]), name="run").summary
        for n in (1, 4)
    )
    assert part["step_time_s"]["mean"] == pytest.approx(whole["step_time_s"]["mean"], rel=0.1)
    assert part["trajectories"] * 4 == whole["trajectories"]
    for side in ("generation", "training"):
        assert part["idle_share"][side] == pytest.approx(whole["idle_share"][side], abs=0.08)


def test_a_slice_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sim\.slice = 7: must divide .*; 16 would do"):
        load_config(CONFIG, ["sim.slice=7"])
