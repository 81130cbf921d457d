"""Generate ahead: so many batches may be in the making at once, and a fraction counts.

Source: ROLL Flash, arXiv 2510.11345, its asynchronous ratio alpha. ROLL calls it
``async_generation_ratio``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from areal_sched import ClusterView, Command, ConfigError, Event, Limits, UpdateMode, parts
from areal_sched.routing import router


class GenerateAhead:
    """Holds at most (1 + alpha) * B rollouts that are not trained yet, B being the batch.

    Args:
        limits: ``eta`` must be at least ``alpha``; a whole alpha does what eta = alpha does.
        alpha: how far generation may run ahead of training, in batches; 0 is synchronous.
        unit: ``rollout`` or ``group``; see `areal_sched.parts.Unit`.
        routing: ``least_loaded``, ``round_robin`` or ``least_kv``.
        mode: what new weights do to running rollouts: ``interrupt``, ``in_place`` or ``drain``.

    Raises:
        ConfigError: ``alpha`` is negative or above eta.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        alpha: float = 1.0,
        unit: parts.Unit = "rollout",
        routing: str = "least_loaded",
        mode: UpdateMode = "interrupt",
    ) -> None:
        parts.one_of("unit", unit, parts.UNITS)
        parts.at_least("alpha", alpha, 0)
        if limits.eta is not None and alpha > limits.eta:
            raise ConfigError(f"scheduler.alpha = {alpha}: above limits.eta = {limits.eta}")
        self._ahead = math.floor((1 + alpha) * limits.train_batch_rollouts)
        self._unit = unit
        self._route = router(routing)
        self._updates = parts.WeightUpdates(mode, self._route)

    def decide(self, event: Event, view: ClusterView) -> Iterator[Command]:
        """Update weights, train what is ready, start what alpha allows."""
        if type(event) in parts.WeightUpdates.EVENTS:
            yield from self._updates.on(event, view)
        yield from parts.discard_abandoned(view)
        yield from parts.train(view, self._unit)
        if self._updates.generating:
            trained = view.weight_version * view.limits.train_batch_rollouts
            most = trained + self._ahead - view.admitted
            yield from parts.start(view, self._route, self._unit, most)
