"""One step off: while step k trains, batch k+1 is generated with the weights from before it.

Source: verl's one-step-off-policy recipe, slime's train_async.
"""

from __future__ import annotations

from collections.abc import Iterator

from areal_sched import parts
from areal_sched.commands import Command
from areal_sched.errors import ConfigError
from areal_sched.events import Event
from areal_sched.limits import Limits
from areal_sched.routing import router
from areal_sched.view import ClusterView


class OneStepOff:
    """Generation and training overlap by one batch and wait for each other; lag is at most 1.

    Args:
        limits: ``eta`` must be at least 1.
        unit: ``rollout`` or ``group``; see `areal_sched.parts.Unit`.
        routing: ``least_loaded``, ``round_robin`` or ``least_kv``.

    Raises:
        ConfigError: eta is 0.
    """

    def __init__(
        self, limits: Limits, *, unit: parts.Unit = "rollout", routing: str = "least_loaded"
    ) -> None:
        parts.one_of("unit", unit, parts.UNITS)
        if limits.eta == 0:
            raise ConfigError("limits.eta = 0: one_step_off needs eta >= 1")
        self._unit = unit
        self._route = router(routing)
        # A push waits for the batch that is being generated: drain.
        self._updates = parts.WeightUpdates("drain", self._route)

    def decide(self, event: Event, view: ClusterView) -> Iterator[Command]:
        """Start one batch per training step begun, on the newest weights loaded everywhere."""
        if type(event) in parts.WeightUpdates.EVENTS:
            yield from self._updates.on(event, view)
        if view.abandoned_groups:
            yield from parts.discard_abandoned(view)
        yield from parts.train(view, self._unit)
        if self._updates.generating:
            begun = view.weight_version + view.in_step
            batches = (begun + 1) * view.limits.train_batch_rollouts
            yield from parts.start(view, self._route, self._unit, batches - view.admitted)
