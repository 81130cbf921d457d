"""What every scheduler has to hold to, run against a cluster that races and breaks.

Every file in ``areal_sched/schedulers`` is found by itself. To have your own scheduler checked::

    AREAL_CONFORMANCE=my_package.my_module:MyScheduler pytest tests/conformance

Its options are varied where their names are those of `benchmarks.variations.OPTIONS`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from areal_sched import (
    JournalReader,
    JournalWriter,
    Limits,
    LoadWeights,
    ServerJoined,
    ServerLost,
    TrainStepFinished,
    WeightsLoaded,
    load,
    replay,
)
from benchmarks.variations import (
    BASIC,
    Refused,
    accepted,
    agreeing,
    options_of,
    schedulers,
    unit_of,
)
from tests.conformance.choices import Choices, Temper
from tests.conformance.drive import Run, drive

PATHS = [*schedulers(), *filter(None, os.environ.get("AREAL_CONFORMANCE", "").split(","))]

MOST_LAG = {"synchronous": 0, "one_step_off": 1}
"""What some schedulers promise beyond the limits: the greatest lag they ever train with."""

each_scheduler = pytest.mark.parametrize("path", PATHS)


@dataclass(frozen=True)
class Case:
    """One run to make, reproducible from what is printed of it."""

    limits: Limits
    options: dict[str, Any]
    temper: Temper
    seed: int
    choices: int


def fitting(path: str, limits: Limits, options: dict[str, Any]) -> Limits:
    """Limits near these; another example is made if no limits go with these options."""
    try:
        return accepted(path, limits, options)
    except Refused:
        reject()


@st.composite
def cases(draw: Callable[[st.SearchStrategy[Any]], Any], path: str) -> Case:
    """Limits, options, a kind of adversary, and its decisions."""
    group_size = draw(st.integers(1, 3))
    groups_in_flight = draw(st.integers(1, 6))
    limits = Limits(
        train_batch_rollouts=group_size * draw(st.integers(1, 3)),
        group_size=group_size,
        eta=draw(st.sampled_from((0, 1, 2, 4, None))),
        max_lag=draw(st.sampled_from((None, 0, 1, 3))),
        max_rollouts_in_flight=group_size * groups_in_flight + draw(st.integers(0, 1)),
        max_failures_per_group=draw(st.integers(0, 3)),
    )
    options = agreeing({k: draw(st.sampled_from(v)) for k, v in options_of(path).items()})
    kinds = ("load", "join", "ready", "reward", "abort", "interrupt", "finish", "step", "prompt")
    temper = Temper(
        servers=draw(st.integers(1, 3)),
        fault_rate=draw(st.sampled_from((0, 8, 30, 80))),
        slow=draw(st.frozensets(st.sampled_from(kinds), max_size=3)),
        kinds_first=draw(st.booleans()),
    )
    return Case(
        limits=fitting(path, limits, options),
        options=options,
        temper=temper,
        seed=draw(st.integers(0, 2**32 - 1)),
        choices=draw(st.integers(1, 6)) * 250,
    )


def _drawn(path: str, data: st.DataObject) -> dict[str, Any]:
    varied = options_of(path).items()
    return agreeing({k: data.draw(st.sampled_from(v), label=k) for k, v in varied})


def check(path: str, case: Case) -> Run:
    """Run one case, with all checks; then read its journal back and replay it."""
    choices = Choices.seeded(case.seed, case.choices)
    scheduler = load(path, case.limits, case.options)
    whole = unit_of(path, case.options, case.limits) == "group"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "journal.gz"
        writer = JournalWriter(file.open("wb"), {"scheduler": path})
        try:
            run = drive(
                scheduler,
                case.limits,
                case.temper,
                choices,
                calm_steps=3,
                groups_whole=whole,
                record=writer.record,
            )
        finally:
            writer.close()
        entries = list(JournalReader(file).entries())
    assert entries == run.entries
    again = load(path, case.limits, case.options)
    assert replay(entries, again, case.limits) == len(entries)
    state = run.controller.state
    assert state.trained == run.steps * case.limits.train_batch_rollouts
    assert max(run.audit.lags) <= MOST_LAG.get(path, run.steps)
    return run


@each_scheduler
def test_keeps_the_laws_while_the_cluster_races_and_breaks(path: str) -> None:
    @settings(max_examples=60)
    @given(case=cases(path))
    def explore(case: Case) -> None:
        check(path, case)

    explore()


@each_scheduler
@pytest.mark.parametrize("max_lag", [None, 0, 1])
def test_trains_the_steps_asked_for_when_nothing_goes_wrong(path: str, max_lag: int | None) -> None:
    limits = Limits(
        train_batch_rollouts=8, group_size=2, eta=2, max_lag=max_lag, max_rollouts_in_flight=24
    )
    limits = accepted(path, limits)
    scheduler = load(path, limits)
    run = drive(scheduler, limits, Temper(), Choices(b""), calm_steps=12)
    state = run.controller.state
    assert run.steps == 12
    assert (state.trained, state.failed, state.late_facts) == (12 * 8, 0, 0)
    assert limits.max_lag is not None or state.dropped == 0


@each_scheduler
def test_survives_the_loss_of_all_servers_at_any_moment(path: str) -> None:
    """Servers fail one after another, and join again late, with old weights."""
    outages = 0

    @settings(max_examples=15)
    @given(seed=st.integers(0, 2**32 - 1), data=st.data())
    def explore(seed: int, data: st.DataObject) -> None:
        nonlocal outages
        options = _drawn(path, data)
        temper = Temper(
            servers=2,
            fault_rate=40,
            faults=frozenset({"server"}),
            slow=frozenset({"join", data.draw(st.sampled_from(("load", "interrupt", "ready")))}),
        )
        run = check(path, Case(fitting(path, BASIC, options), options, temper, seed, 1200))
        up = 0
        for entry in run.entries:
            up += isinstance(entry.event, ServerJoined) - isinstance(entry.event, ServerLost)
            outages += isinstance(entry.event, ServerLost) and up == 0

    explore()
    assert outages > 15


@each_scheduler
def test_a_server_may_load_for_longer_than_steps_take(path: str) -> None:
    """Newer weights are published while a server loads; nothing gets older than it may be."""

    @settings(max_examples=15)
    @given(seed=st.integers(0, 2**32 - 1), data=st.data())
    def explore(seed: int, data: st.DataObject) -> None:
        options = _drawn(path, data)
        limits = Limits(
            train_batch_rollouts=2,
            group_size=2,
            eta=data.draw(st.sampled_from((0, 1, None)), label="eta"),
            max_lag=data.draw(st.sampled_from((0, 1)), label="max_lag"),
            max_rollouts_in_flight=12,
        )
        limits = fitting(path, limits, options)
        temper = Temper(servers=3, slow=frozenset({"load"}), kinds_first=True)
        check(path, Case(limits, options, temper, seed, 1000))

    explore()


def test_the_built_in_schedulers_are_all_here() -> None:
    known = "areal", "bounded_lag", "in_flight", "one_step_off", "partial_rollout", "synchronous"
    assert set(known) <= set(PATHS)


@pytest.mark.parametrize("path", ["areal", "bounded_lag", "in_flight"])
@pytest.mark.parametrize("at_once", [1, 2])
def test_no_more_servers_load_at_once_than_may_and_none_is_left_out(
    path: str, at_once: int
) -> None:
    """Whatever the mode, with servers lost and versions that come faster than a round takes."""
    most = 0

    @settings(max_examples=20)
    @given(seed=st.integers(0, 2**32 - 1), data=st.data())
    def explore(seed: int, data: st.DataObject) -> None:
        nonlocal most
        options = agreeing({**_drawn(path, data), "servers_at_once": at_once})
        temper = Temper(
            servers=4,
            fault_rate=data.draw(st.sampled_from((0, 20))),
            faults=frozenset({"server"}),
            slow=frozenset({"load"}),
        )
        run = check(path, Case(fitting(path, BASIC, options), options, temper, seed, 1200))
        loading: dict[int, int] = {}
        held: dict[int, int] = {}
        published = 0
        for entry in run.entries:
            event = entry.event
            if isinstance(event, ServerJoined):
                held[event.server_id] = event.weight_version
            elif isinstance(event, ServerLost):
                held.pop(event.server_id)
                loading.pop(event.server_id, None)
            elif isinstance(event, WeightsLoaded):
                held[event.server_id] = loading.pop(event.server_id)
            elif isinstance(event, TrainStepFinished):
                published = event.weight_version
            for command in entry.commands:
                if isinstance(command, LoadWeights):
                    waiting = [v for s, v in held.items() if s not in loading]
                    assert held[command.server_id] == min(waiting)
                    loading[command.server_id] = command.weight_version
            most = max(most, len(loading))
            assert len(loading) <= at_once
            old = sum(version < published for s, version in held.items() if s not in loading)
            assert len(loading) == at_once or not old, "nobody waits where there is room"

    explore()
    assert most == at_once
