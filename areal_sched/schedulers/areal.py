"""AReaL: generate all the time, bound staleness at admission, interrupt on every new version.

Source: arXiv 2505.24298, sections 4 and 5.1, eq. 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from areal_sched import parts
from areal_sched.commands import Command, UpdateMode
from areal_sched.events import Event, RewardComputed, RolloutFinished
from areal_sched.limits import Limits
from areal_sched.routing import router
from areal_sched.view import ClusterView


class Areal:
    """Trains as soon as a batch is ready, oldest first, each trajectory once.

    Args:
        limits: ``eta`` bounds what may start; ``max_rollouts_in_flight`` how much at a time.
        unit: ``rollout`` (one place per answer) or ``group`` (a prompt holds the places of all
            its answers until the last has its reward, and they are trained in one step).
        routing: ``least_loaded``, ``round_robin`` or ``least_kv``.
        mode: ``interrupt`` as in the paper; ``drain`` is its non-interruptible ablation.
        barrier: servers wait for each other after an update, as in the paper's system; by default
            unless `servers_at_once` is given.
        resume_after: ``load``, or ``evaluation`` as the released system does.
        servers_at_once: update so many servers at a time, while the others generate; None: all.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        unit: parts.Unit = "rollout",
        routing: str = "least_loaded",
        mode: UpdateMode = "interrupt",
        barrier: bool | None = None,
        resume_after: str = "load",
        servers_at_once: int | None = None,
    ) -> None:
        parts.one_of("unit", unit, parts.UNITS)
        parts.one_of("resume_after", resume_after, ("load", "evaluation"))
        self._unit = unit
        self._batch = limits.train_batch_rollouts
        self._route = router(routing, spare_loading=servers_at_once is not None)
        self._updates = parts.WeightUpdates(
            mode,
            self._route,
            barrier=barrier,
            hold_for_trainer=resume_after == "evaluation",
            servers_at_once=servers_at_once,
        )

    def decide(self, event: Event, view: ClusterView) -> Iterable[Command]:
        """Update weights, train what is ready, start what fits."""
        kind = type(event)
        if self._unit == "rollout":
            # The two events there are of every trajectory, without a generator.
            if kind is RolloutFinished:
                # A place is free; nothing can have become ready.
                generating = self._updates.generating
                return parts.start_rollouts(view, self._route) if generating else ()
            if kind is RewardComputed and view.limits.max_lag is None:
                # No place became free, as nothing is dropped; a batch may be complete.
                complete = view.trainer_ready and len(view.ready) >= self._batch
                return parts.train(view, self._unit) if complete else ()
        elif kind is RolloutFinished:
            return ()  # Its group holds its place until the last of it has its reward.
        return self._any(event, view)

    def _any(self, event: Event, view: ClusterView) -> Iterator[Command]:
        if type(event) in parts.WeightUpdates.EVENTS:
            yield from self._updates.on(event, view)
        if view.abandoned_groups:
            yield from parts.discard_abandoned(view)
        yield from parts.train(view, self._unit)
        if self._updates.generating:
            yield from parts.start(view, self._route, self._unit)
