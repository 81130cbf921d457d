"""Runs one scheduler against one fake cluster: first the adversary, then calm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from areal_sched import Controller, Entry, Limits, Scheduler
from areal_sched.controller import Record
from tests.conformance.audit import Audit
from tests.conformance.choices import Choices, Temper
from tests.conformance.fake_cluster import FakeCluster


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
