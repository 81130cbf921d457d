"""No schedule, in any world and under any faults, breaks a law of the simulation."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from areal_sched import built_in
from tests.sim.worlds import World, check, worlds

each_scheduler = pytest.mark.parametrize("path", list(built_in()))


@each_scheduler
def test_laws_hold_in_any_world(path: str) -> None:
    @settings(max_examples=60)
    @given(world=worlds(path))
    def explore(world: World) -> None:
        check(world)

    explore()
