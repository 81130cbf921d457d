"""What a load takes alone and beside others: found where the journals tell it, and used again."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from analysis.calibration.calibrate import fit_load
from analysis.calibration.engine import Part
from analysis.recorder import SERVER_ACTIVITIES
from areal_sched import Limits
from tests.sim.setups import (
    NS_PER_S,
    Ran,
    constant_lengths,
    costs,
    server_cost,
    setup,
    simulate,
    trainer_cost,
)

LIMITS = Limits(train_batch_rollouts=8, eta=4, max_rollouts_in_flight=24)
LOAD_S, SHARED_S = 0.010, 0.006


def run_of(load_s: float = LOAD_S, shared_s: float = SHARED_S, **options: Any) -> Ran:
    return simulate(
        setup(
            LIMITS,
            servers=3,
            steps=12,
            source=constant_lengths(40),
            costs=costs(
                server_cost(base_ns=50_000),
                trainer_cost(0.08),
                load_s=load_s,
                load_shared_s=shared_s,
            ),
        ),
        "in_flight",
        **options,
    )


def part(run: Ran) -> Part:
    return Part(run.recorder, 0, run.now_ns)


def loading_s(run: Ran) -> float:
    """Seconds that servers stood still to load."""
    spans = run.recorder.server_spans
    length = spans["end_ns"] - spans["start_ns"]
    names = spans["activity"]
    return float(length[names == SERVER_ACTIVITIES.index("load")].sum()) / NS_PER_S


def test_both_kinds_of_update_tell_what_sharing_costs() -> None:
    found = fit_load([part(run_of()), part(run_of(servers_at_once=1))], 0.0)
    assert found is not None
    assert found["load_s"] == pytest.approx(LOAD_S, rel=0.02)
    assert found["load_shared_s"] == pytest.approx(SHARED_S, rel=0.05)
    # And so a third kind is predicted: two at a time.
    real = run_of(servers_at_once=2)
    again = run_of(found["load_s"], found["load_shared_s"], servers_at_once=2)
    assert loading_s(again) == pytest.approx(loading_s(real), rel=0.05)
    naive = run_of(found["load_s"], 0.0, servers_at_once=2)
    assert loading_s(naive) < 0.85 * loading_s(real)


@pytest.mark.parametrize("options", [{}, {"servers_at_once": 1}])
def test_one_kind_is_fitted_as_it_was(options: dict[str, Any]) -> None:
    found = fit_load([part(run_of(**options))], 0.0)
    assert found is not None
    assert [coefficient.name for coefficient in found.coefficients] == ["load_s"]
    others = 0 if options else 2
    assert found["load_s"] == pytest.approx(LOAD_S + others * SHARED_S, rel=0.02)


def test_where_sharing_costs_nothing_none_is_found() -> None:
    found = fit_load([part(run_of(shared_s=0.0)), part(run_of(shared_s=0.0, servers_at_once=1))], 0)
    assert found is not None
    assert found["load_s"] == pytest.approx(LOAD_S, rel=0.02)
    assert all(x.value < 0.01 * LOAD_S for x in found.coefficients[1:])


def test_the_file_keeps_it() -> None:
    kept = costs(load_s=LOAD_S, load_shared_s=SHARED_S)
    assert type(kept).from_toml(kept.to_toml()) == kept
    without = dataclasses.replace(kept, load_shared_s=0.0)
    assert "load_shared_s" not in without.to_toml()
    assert type(kept).from_toml(without.to_toml()) == without
    assert type(kept).from_provider(kept, source=kept.source) == kept
