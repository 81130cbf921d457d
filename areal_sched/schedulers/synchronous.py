"""Synchronous: generate a batch, wait for the slowest, train, update weights, repeat."""

from __future__ import annotations

from collections.abc import Iterator

from areal_sched import parts
from areal_sched.commands import Command
from areal_sched.events import Event
from areal_sched.limits import Limits
from areal_sched.routing import router
from areal_sched.view import ClusterView


class Synchronous:
    """One batch per weight version, whatever eta allows; every trajectory has lag 0.

    Servers and trainer take turns, so they may share their GPUs (``cluster.colocated``).

    Args:
        limits: ``train_batch_rollouts`` is the batch.
        unit: ``rollout`` or ``group``; see `areal_sched.parts.Unit`.
        routing: ``least_loaded``, ``round_robin`` or ``least_kv``.
    """

    def __init__(
        self, limits: Limits, *, unit: parts.Unit = "rollout", routing: str = "least_loaded"
    ) -> None:
        parts.one_of("unit", unit, parts.UNITS)
        self._unit = unit
        self._route = router(routing)
        # Nothing runs when weights come; draining also covers answers dropped while running.
        self._updates = parts.WeightUpdates("drain", self._route)

    def decide(self, event: Event, view: ClusterView) -> Iterator[Command]:
        """Start the version's batch, train it when it is complete."""
        if type(event) in parts.WeightUpdates.EVENTS:
            yield from self._updates.on(event, view)
        if view.abandoned_groups:
            yield from parts.discard_abandoned(view)
        yield from parts.train(view, self._unit)
        if self._updates.generating:
            batch = (view.weight_version + 1) * view.limits.train_batch_rollouts
            yield from parts.start(view, self._route, self._unit, batch - view.admitted)
