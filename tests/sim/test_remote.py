"""Servers behind a client, and a machine that servers and trainer share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from areal_sched.limits import Limits
from areal_sim.clock import Clock
from areal_sim.costs.protocol import ClientCost, HostCost
from areal_sim.host import SharedHost
from areal_sim.remote import Pipe
from areal_sim.simulation import SimulationError
from tests.sim.setups import Ran, begin, constant_lengths, costs, setup, simulate, trainer_cost

SCHEDULES = ("areal", "synchronous", "one_step_off", "in_flight", "partial_rollout")
AMPLE = HostCost(cores=1000, server_cores=1, trainer_cores=1)


def run(path: str, client: ClientCost, host: HostCost, **changes: Any) -> Ran:
    limits = Limits(
        train_batch_rollouts=12,
        group_size=3,
        eta=0 if path == "synchronous" else 2,
        max_lag=None,
        max_rollouts_in_flight=40,
        max_failures_per_group=3,
    )
    cost = costs(trainer=trainer_cost(0.02), publish_s=0.003, load_s=0.002)
    made = setup(
        limits,
        servers=2,
        costs=replace(cost, client_cost=client, host_cost=host),
        source=constant_lengths(17, 3),
        max_running_rollouts=8,
        **changes,
    )
    return simulate(made, path)


@pytest.mark.parametrize("path", SCHEDULES)
def test_a_machine_with_processors_to_spare_changes_nothing(path: str) -> None:
    assert (
        run(path, ClientCost(), AMPLE).step_ends_ns()
        == run(path, ClientCost(), HostCost()).step_ends_ns()
    )


@pytest.mark.parametrize("path", SCHEDULES)
def test_a_client_that_takes_no_time_changes_little(path: str) -> None:
    """It holds back what the engine would hold back; only the order of equals may differ."""
    plain = run(path, ClientCost(), HostCost()).step_ends_ns()
    behind = run(path, ClientCost(report_s=1e-9), HostCost()).step_ends_ns()
    for a, b in zip(plain, behind, strict=True):
        assert b == pytest.approx(a, rel=0.15)


@pytest.mark.parametrize("path", SCHEDULES)
def test_a_slow_client_makes_every_step_longer(path: str) -> None:
    slow = ClientCost(dispatch_s=0.01, report_s=0.01, stop_s=0.004, train_s=0.01, trained_s=0.01)
    assert (
        run(path, slow, HostCost()).step_ends_ns()[-1]
        > run(path, ClientCost(), HostCost()).step_ends_ns()[-1] + 4 * 20_000_000
    )


def test_half_the_processors_are_half_the_speed() -> None:
    """Alone with its servers, and their demand twice what there is: all times are doubled."""
    host = HostCost(cores=1, server_cores=1, trainer_cores=2)
    whole = run("synchronous", ClientCost(), HostCost()).step_ends_ns()
    halved = run("synchronous", ClientCost(), host).step_ends_ns()
    # Servers and trainer take turns, and the last rollouts end together on both servers.
    for a, b in zip(whole, halved, strict=True):
        assert b == pytest.approx(2 * a, rel=1e-3)


def test_spans_are_told_in_real_time() -> None:
    ran = run("areal", ClientCost(dispatch_s=0.001), HostCost(cores=2, server_cores=2))
    for spans in (ran.recorder.server_spans, ran.recorder.trainer_spans):
        assert int(spans["end_ns"].max()) == ran.now_ns
        assert (spans["end_ns"] > spans["start_ns"]).all()


def test_a_shared_machine_is_not_for_colocated_runs() -> None:
    with pytest.raises(SimulationError, match=r"costs\.host"):
        run("synchronous", ClientCost(), AMPLE, colocated=True)


def test_messages_pass_one_after_the_other() -> None:
    env = Clock()
    arrived: list[int] = []
    pipe = Pipe(env, latency_s=5e-6, each_s=2e-6)
    for _ in range(3):
        pipe.then(lambda: arrived.append(env.now))
    env.run()
    assert arrived == [7000, 9000, 11000]
    pipe.then(lambda: arrived.append(env.now))
    env.run()
    assert arrived[-1] == 11000 + 7000


def test_clocks_go_slower_while_more_is_wanted_than_there_is() -> None:
    env = Clock()
    shared = SharedHost(env, cores=2)
    server, trainer = shared.new_clock(), shared.trainer_clock
    rang: dict[str, tuple[int, int]] = {}
    shared.serves("server", 2.0)

    def begin(_: object) -> None:
        shared.trains(1.0)
        trainer.timeout(200).callbacks.append(end)

    def end(_: object) -> None:
        shared.trains(0.0)
        rang["trainer"] = (env.now, trainer.now)

    server.timeout(1000).callbacks.append(lambda _: rang.update(server=(env.now, server.now)))
    env.timeout(500).callbacks.append(begin)
    env.run()
    # The trainer runs at 2 / 3 of its speed for its 200 ns, the server meanwhile at 1 / 2.
    assert rang["trainer"] == (800, 700)
    assert rang["server"] == (1150, 1000)


def test_a_lost_server_leaves_nothing_behind_on_the_way() -> None:
    limits = Limits(
        train_batch_rollouts=4,
        group_size=1,
        eta=2,
        max_lag=None,
        max_rollouts_in_flight=12,
        max_failures_per_group=3,
    )
    client = ClientCost(dispatch_s=0.004, dispatch_per_rollout_s=0.002, report_s=0.004)
    made = setup(
        limits,
        servers=2,
        costs=replace(costs(trainer=trainer_cost(0.01)), client_cost=client),
        source=constant_lengths(9, 3),
        max_running_rollouts=3,
    )
    for events in range(1, 120, 7):
        ran = begin(made, "areal")
        simulation = ran.simulation
        for _ in range(events):
            if not simulation.finished:
                simulation.run(1)
        if simulation.executor.servers[0].alive and not simulation.finished:
            simulation.executor.lose_server(0)  # type: ignore[arg-type]
            simulation.executor.return_server(0)  # type: ignore[arg-type]
        assert simulation.run(100_000)
        ran.end()  # which counts every rollout
