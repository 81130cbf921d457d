"""Runs one scheduler against one fake cluster: first the adversary, then calm."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from areal_sched import ConfigError, Controller, Entry, Limits, Scheduler, load
from areal_sched.controller import Record
from tests.conformance.audit import Audit
from tests.conformance.choices import Choices, Temper
from tests.conformance.fake_cluster import FakeCluster

OPTIONS: Mapping[str, tuple[Any, ...]] = {
    "unit": ("group", "rollout"),
    "routing": ("least_loaded", "round_robin", "least_kv"),
    "mode": ("interrupt", "in_place", "drain"),
    "barrier": (True, False),
    "resume_after": ("load", "evaluation"),
    "over_provision": (1.0, 1.5, 3.0),
    "alpha": (0.0, 0.5, 1.0),
}
"""Options by the names that schedulers share; those a scheduler has are varied."""

BASIC = Limits(train_batch_rollouts=8, group_size=2, eta=2, max_rollouts_in_flight=24)


class Refused(AssertionError):
    """A scheduler accepts no limits at all with some options."""


@functools.cache
def options_of(path: str) -> dict[str, tuple[Any, ...]]:
    """Names and values of the options to vary for one scheduler: those that it accepts."""
    names = inspect.signature(type(load(path, accepted(path, BASIC)))).parameters
    vary: dict[str, tuple[Any, ...]] = {}
    for name in OPTIONS.keys() & names:
        for value in OPTIONS[name]:
            try:
                accepted(path, BASIC, {name: value})
            except Refused:
                continue
            vary[name] = (*vary.get(name, ()), value)
    return {name: vary[name] for name in OPTIONS if name in vary}


def unit_of(path: str, options: Mapping[str, Any], limits: Limits) -> str | None:
    """The unit of consumption, given or by default; None if the scheduler has no such option."""
    parameter = inspect.signature(type(load(path, limits, options))).parameters.get("unit")
    return None if parameter is None else options.get("unit", parameter.default)


def accepted(path: str, limits: Limits, options: Mapping[str, Any] | None = None) -> Limits:
    """The limits nearest to these that the scheduler does not refuse.

    A scheduler may need eta at least 1, and ``max_lag`` set or not set.

    Raises:
        Refused: none of those limits will do.
    """
    eta = limits.eta if limits.eta is None else max(limits.eta, 1)
    lag = 2 if limits.max_lag is None else limits.max_lag
    refused = None
    for changes in (
        {},
        {"eta": eta},
        {"max_lag": lag},
        {"max_lag": None},
        {"eta": eta, "max_lag": lag},
        {"eta": eta, "max_lag": None},
        {"eta": eta, "max_lag": max(lag, 1)},
    ):
        candidate = replace(limits, **changes)
        try:
            load(path, candidate, options)
        except ConfigError as exc:
            refused = exc
        else:
            return candidate
    raise Refused(f"{path} refuses all limits tried; last: {refused}")


@dataclass
class Run:
    """What became of a run."""

    controller: Controller
    cluster: FakeCluster
    audit: Audit
    entries: list[Entry]

    @property
    def steps(self) -> int:
        """Training steps finished."""
        return self.cluster.published


def drive(
    scheduler: Scheduler,
    limits: Limits,
    temper: Temper,
    choices: Choices,
    *,
    calm_steps: int,
    groups_whole: bool = False,
    record: Record | None = None,
    audited: Limits | None = None,
) -> Run:
    """Run until the choices are used up, then until so many further training steps are done.

    Args:
        scheduler, limits: what runs.
        temper, choices: the adversary.
        calm_steps: training steps to finish after it.
        groups_whole: whether groups must be trained whole.
        record: gets all entries, as the controller hands them out.
        audited: limits to check, if not those the scheduler was given.

    Raises:
        AssertionError: a law is broken, or the run is stuck: nothing can happen any more, or
            more happens than so many steps can need.
    """
    entries: list[Entry] = []

    def note(now_ns: int, event: Any, commands: Any, error: str | None) -> None:
        entries.append(Entry(len(entries) + 2, now_ns, event, commands, error))
        if record is not None:
            record(now_ns, event, commands, error)

    controller = Controller(scheduler, limits, note)
    state = controller.state
    cluster = FakeCluster(state, temper, choices)
    audit = Audit(cluster, audited or limits, groups_whole=groups_whole)
    run = Run(controller, cluster, audit, entries)
    goal = left = None
    while goal is None or cluster.published < goal:
        if choices.calm and goal is None:
            goal = cluster.published + calm_steps
            # Per trajectory: prompt, finish, reward; it may be interrupted, or dropped as too old.
            to_do = len(state.rollouts) + (calm_steps + 2) * limits.train_batch_rollouts
            left = 50 + 40 * calm_steps * temper.servers + 16 * to_do
        if left is not None:
            left -= 1
            assert left > 0, "livelock: " + stuck(run)
        event = cluster.next_event()
        assert event is not None, "deadlock: " + stuck(run)
        for command in controller.handle(event, now_ns=cluster.now_ns):
            audit.before_command(command, state)
            cluster.execute(command)
        audit.after_event(state)
    return run


def stuck(run: Run) -> str:
    """Where a run that makes no progress stands, and its last entries."""
    state = run.controller.state
    facts = [
        f"version {state.weight_version}, trainer ready: {state.trainer_ready}",
        f"in step: {state.in_step}, may start {state.may_start()}",
        f"{len(state.pending)} pending and {state.open_groups} open groups",
        f"{state.running} running, {len(state.interrupted)} interrupted",
        f"{state.awaiting_reward} in reward, {len(state.ready)} ready",
        f"{len(state.complete_groups)} complete groups",
        f"loading: { {s.server_id: s.loading for s in state.servers.values()} }",
    ]
    tail = [f"{entry.event} -> {entry.commands}" for entry in run.entries[-12:]]
    return "\n  ".join(["; ".join(facts), *tail])
