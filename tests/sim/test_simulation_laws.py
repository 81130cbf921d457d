"""No schedule, in any world and under any faults, breaks a law of the simulation.

What `worlds.check` holds against every run: no trajectory is trained twice and none is lost
uncounted, nothing starts beyond eta or the places in flight, nothing is trained beyond ``max_lag``,
the run comes to its end, its journal replays exactly, the answers are the workload's and take their
time, and the spans of every device tile the run.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from analysis.audit import JournalAudit
from areal_sched import (
    Limits,
    RolloutFinished,
    ServerId,
    ServerJoined,
    ServerLost,
    TrainStepFinished,
    built_in,
)
from areal_sim.faults import Faults
from areal_sim.simulation import Simulation, SimulationError
from benchmarks.variations import accepted
from tests.sim.digest import busy_world
from tests.sim.setups import (
    MS,
    begin,
    constant_lengths,
    costs,
    drawn_lengths,
    server_cost,
    setup,
    simulate,
    trainer_cost,
)
from tests.sim.worlds import US, World, check, worlds

each_scheduler = pytest.mark.parametrize("path", list(built_in()))

MOST_LAG = {"synchronous": 0, "one_step_off": 1}
"""What some schedulers promise beyond the limits."""


@each_scheduler
def test_laws_hold_in_any_world(path: str) -> None:
    """Ten thousand more worlds are those of ``python -m benchmarks.fault_schedules``."""

    @settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
    @given(world=worlds(path))
    def explore(world: World) -> None:
        _, audit = check(world)
        assert max(audit.lags) <= MOST_LAG.get(path, world.steps)

    explore()


@each_scheduler
def test_laws_hold_where_everything_happens_at_once(path: str) -> None:
    for seed in range(3):
        run, audit = check(busy_world(path, seed))
        kinds = Counter(type(entry.event) for entry in run.entries)
        assert kinds[ServerLost] > 3
        assert kinds[ServerJoined] > 3
        if path in ("areal", "bounded_lag", "in_flight"):  # the others fill the servers less
            assert sum(s.preemptions for s in run.simulation.executor.servers.values()) > 0
        assert max(audit.lags) <= MOST_LAG.get(path, 12)


@each_scheduler
def test_all_servers_lost_at_once_after_any_number_of_events(path: str) -> None:
    """Everything is lost at each of the first 60 instants, and comes back in two turns."""
    limits = accepted(path, Limits(train_batch_rollouts=4, group_size=2, eta=2, max_lag=2))
    for events in range(60):
        made = setup(
            limits,
            servers=2,
            steps=3,
            costs=costs(server_cost(), trainer_cost(0.004), load_s=0.002),
            source=drawn_lengths(9, lambda rng: int(rng.integers(1, 9))),
            reward_service_s=0.001,
        )
        run = begin(made, path)
        executor = run.simulation.executor
        if run.simulation.run(events):
            break
        for server_id in (0, 1):
            executor.lose_server(ServerId(server_id))
        state = run.simulation.state
        assert not state.servers
        assert state.running == 0
        for server_id in (1, 0):
            executor.return_server(ServerId(server_id))
            run.simulation.run(2)
        assert run.simulation.run(20_000), events
        run.end()
        assert state.trained == 12
    assert events > 20


@pytest.mark.parametrize("path", ["areal", "in_flight", "bounded_lag"])
def test_a_server_is_lost_at_the_instant_its_answers_end(path: str) -> None:
    """What it finished is finished, and nothing sent in answer stays behind on it.

    Four equal answers end at 9 ms on either server; the second is lost at that instant, before it
    was asked. On its return it must not have work that another server does as well.
    """
    limits = accepted(path, Limits(train_batch_rollouts=8, eta=4, max_rollouts_in_flight=8))
    made = setup(limits, servers=2, steps=3, source=constant_lengths(10))
    run = begin(made, path, {"unit": "rollout"})
    simulation = run.simulation
    while simulation.now_ns < 9 * MS:
        simulation.run(1)
    ended = [e.event for e in run.entries if isinstance(e.event, RolloutFinished)]
    assert len(ended) == 4
    other = ServerId(1 - simulation.state.rollouts[ended[0].rollout_id].server_id)
    simulation.executor.lose_server(other)
    ended = [e.event for e in run.entries if isinstance(e.event, RolloutFinished)]
    assert len(ended) == 8
    assert not simulation.executor.servers[other].engine.waiting
    simulation.executor.return_server(other)
    assert simulation.run(1000)
    JournalAudit(limits).read(run.end().entries)


@pytest.mark.parametrize("path", ["synchronous", "areal"])
@pytest.mark.parametrize("lost", [{0}, {0, 1}])
def test_shared_gpus_survive_losses_at_any_moment(path: str, lost: set[int]) -> None:
    """Colocated: a server that dies owes the trainer nothing; one that returns waits for it.

    Lost after each of the first 90 SimPy events, also between the trainer's asking and the end of
    the decode step in progress.
    """
    for events in range(90):
        check(colocated(path, lost, events))


def test_a_trainer_does_not_wait_for_servers_that_are_gone() -> None:
    """Colocated: the step goes on although no server ever comes back, whenever they are lost."""
    waited = 0
    for events in range(60):
        world = colocated("areal", set(), events)
        run = begin(world.setup(), world.path)
        simulation, state = run.simulation, run.simulation.state
        simulation.run(events)
        if not state.in_step:
            continue
        version = state.weight_version
        waited += bool(simulation.executor._owing)
        for server_id in (0, 1):
            simulation.executor.lose_server(ServerId(server_id))
        while state.weight_version == version:
            simulation.run(1)  # or SimulationError: a deadlock
    assert waited > 0, "no loss came while a server still had to end its step"


@each_scheduler
def test_a_server_comes_back_with_the_newest_weights(path: str) -> None:
    run, _ = check(busy_world(path))
    version, first = 0, True
    for entry in run.entries:
        version += isinstance(entry.event, TrainStepFinished)
        if isinstance(entry.event, ServerJoined):
            assert entry.event.weight_version == version
            first = first and version == 0
    assert not first, "one came back after a training step"


def colocated(path: str, lost: set[int], events: int) -> World:
    return World(
        path=path,
        limits=Limits(train_batch_rollouts=4, eta=1, max_rollouts_in_flight=6),
        options={},
        steps=4,
        servers=2,
        colocated=True,
        tokens=12,
        spread=True,
        prompt_tokens=3,
        max_running=4,
        rooms=4,
        chunk=16,
        server_fs=(1_234_567_891, 0, 0, 10**9, 0, 0),
        trainer_s=(10 * US, US, 5 * US, 3 * US, 2 * US),
        reward=(2, US, 0.0),
        faults=Faults(),
        actions=((events, "lose", frozenset(lost)), (5, "return", frozenset(lost))),
        seed=events,
    )


def test_an_aborted_rollout_leaves_its_group_as_long_as_it_was() -> None:
    """Nobody replaces what a scheduler aborts: the data loader's read-ahead must not shrink.

    A group of which one answer was aborted before the last was started offers the next group all
    the same; otherwise a run with many aborts would run dry.
    """
    made = setup(
        Limits(train_batch_rollouts=2, group_size=2, max_lag=0, eta=None, max_rollouts_in_flight=3),
        servers=1,
        steps=60,
        costs=costs(server_cost(), trainer_cost(0.001)),
        source=drawn_lengths(4, lambda rng: int(rng.integers(1, 30))),
    )
    run = simulate(made, "bounded_lag", unit="rollout")
    assert run.simulation.state.failed > 10
    assert len(run.simulation.state.pending) >= 64


def test_a_scheduler_that_asks_for_nothing_is_told_so() -> None:
    """A deadlock is an error that says where everything stands."""

    class Idle:
        def decide(self, event: Any, view: Any) -> tuple[()]:
            return ()

    run = begin(setup(Limits(train_batch_rollouts=1)), "areal")
    with pytest.raises(SimulationError, match=r"deadlock at 0\.000 s: .*servers 1, running 0"):
        Simulation(run.setup, Idle()).run()
