"""Loads that slow each other down, by hand, and what rolling updates gain by it."""

from __future__ import annotations

from typing import Any

import pytest

from areal_sched import ConfigError, Limits
from areal_sched.commands import LoadWeights
from areal_sched.events import WeightsLoaded
from areal_sched.ids import ServerId
from areal_sim.clock import Clock
from areal_sim.loading import SharedLoads
from tests.sim.setups import MS, Ran, constant_lengths, costs, setup, simulate, trainer_cost

LIMITS = Limits(train_batch_rollouts=8, eta=4, max_rollouts_in_flight=24)


def ends(share: float, begins: dict[int, tuple[int, int]], lost: tuple[int, int] | None = None):  # type: ignore[no-untyped-def]
    """When loads end that begin at (time, work), one of them lost at (server, time)."""
    env = Clock()
    loads = SharedLoads(share)
    found: dict[int, int] = {}

    def at(time_ns: int, act: Any) -> None:
        env.timeout(time_ns).callbacks.append(lambda _: act())

    for server, (time_ns, work_ns) in begins.items():
        number = ServerId(server)
        at(
            time_ns,
            lambda number=number, work_ns=work_ns: loads.begin(
                number, env, work_ns, lambda: found.__setitem__(number, env.now)
            ),
        )
    if lost is not None:
        at(lost[1], lambda: loads.give_up(ServerId(lost[0])))
    env.run()
    return found


def test_one_alone_takes_its_time() -> None:
    assert ends(0.7, {0: (5, 100)}) == {0: 105}
    assert ends(0.7, {0: (0, 100), 1: (100, 50)}) == {0: 100, 1: 150}


@pytest.mark.parametrize(("share", "time"), [(0.0, 100), (0.5, 200), (1.0, 300)])
def test_three_together_take_what_the_formula_says(share: float, time: int) -> None:
    assert ends(share, dict.fromkeys(range(3), (7, 100))) == dict.fromkeys(range(3), 7 + time)


def test_one_that_comes_later_slows_down_what_is_left() -> None:
    # 40 alone; then both at half speed: server 0 has 60 left, takes 120; server 1 has by then 40
    # left, alone again.
    assert ends(1.0, {0: (0, 100), 1: (40, 100)}) == {0: 160, 1: 200}


def test_a_lost_server_disturbs_no_more() -> None:
    assert ends(1.0, {0: (0, 100), 1: (0, 100)}, lost=(1, 50)) == {0: 50 + 75}
    assert ends(1.0, {0: (0, 100)}, lost=(1, 50)) == {0: 100}


def loads_ms(run: Ran) -> list[float]:
    """How long each load took, by the journal."""
    began: dict[int, int] = {}
    found = []
    for entry in run.entries:
        if isinstance(entry.event, WeightsLoaded):
            found.append((entry.now_ns - began.pop(entry.event.server_id)) / MS)
        for command in entry.commands:
            if isinstance(command, LoadWeights):
                began[command.server_id] = entry.now_ns
    return found


def run_of(**options: Any) -> Ran:
    return simulate(
        setup(
            LIMITS,
            servers=3,
            steps=6,
            source=constant_lengths(40),
            costs=costs(trainer=trainer_cost(0.08), load_s=0.01, load_shared_s=0.005),
        ),
        "in_flight",
        **options,
    )


def test_all_at_once_share_and_one_by_one_does_not() -> None:
    together, rolling = run_of(), run_of(servers_at_once=1)
    # A step in progress of a millisecond is waited for, and counts as the load's from then on.
    assert loads_ms(together)[:3] == [pytest.approx(20, abs=1)] * 3
    assert loads_ms(rolling)[:3] == [pytest.approx(10, abs=1)] * 3
    two = run_of(servers_at_once=2)
    assert loads_ms(two)[:3] == [pytest.approx(15, abs=1)] * 2 + [pytest.approx(10, abs=1)]


def test_the_shared_time_needs_a_time_to_share() -> None:
    with pytest.raises(ConfigError, match=r"^load_shared_s = 0.5: load_s is 0$"):
        costs(load_shared_s=0.5)
