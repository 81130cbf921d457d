"""In-flight update: weights change in place, running rollouts keep their KV cache and go on.

Source: PipelineRL, Magistral.
"""

from __future__ import annotations

from collections.abc import Iterator

from areal_sched import parts
from areal_sched.commands import Command
from areal_sched.events import Event
from areal_sched.limits import Limits
from areal_sched.routing import router
from areal_sched.view import ClusterView


class InFlight:
    """Every server loads every version as soon as it can; nothing is computed twice.

    Args:
        limits: as for AReaL.
        unit: ``rollout`` or ``group``; see `areal_sched.parts.Unit`.
        routing: ``least_loaded``, ``round_robin`` or ``least_kv``.
        barrier: new rollouts wait until all servers have loaded; not with `servers_at_once`.
        servers_at_once: update so many servers at a time, while the others generate; None: all.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        unit: parts.Unit = "rollout",
        routing: str = "least_loaded",
        barrier: bool = False,
        servers_at_once: int | None = None,
    ) -> None:
        parts.one_of("unit", unit, parts.UNITS)
        self._unit = unit
        self._route = router(routing, spare_loading=servers_at_once is not None)
        self._updates = parts.WeightUpdates(
            "in_place", self._route, barrier=barrier, servers_at_once=servers_at_once
        )

    def decide(self, event: Event, view: ClusterView) -> Iterator[Command]:
        """Push weights, train what is ready, keep the servers full."""
        if type(event) in parts.WeightUpdates.EVENTS:
            yield from self._updates.on(event, view)
        if view.abandoned_groups:
            yield from parts.discard_abandoned(view)
        yield from parts.train(view, self._unit)
        if self._updates.generating:
            yield from parts.start(view, self._route, self._unit)
