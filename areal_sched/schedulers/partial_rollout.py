"""Partial rollouts: start more than a batch, stop when a batch is complete, resume the rest later.

Source: APRIL (over-provision, recycle partial rollouts), Kimi k1.5 (partial rollouts).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from areal_sched import parts
from areal_sched.commands import Command, InterruptRollouts
from areal_sched.errors import ConfigError
from areal_sched.events import Event
from areal_sched.limits import Limits
from areal_sched.routing import router
from areal_sched.view import ClusterView


class PartialRollout:
    """Rounds: generate until a batch is complete, interrupt the rest, train, resume the rest.

    Args:
        limits: ``eta`` must be at least 1: a recycled rollout spans versions.
        over_provision: rollouts in progress at the start of a round, in batches; above 1.
        unit: ``rollout`` or ``group``; see `areal_sched.parts.Unit`.
        routing: ``least_loaded``, ``round_robin`` or ``least_kv``.

    Raises:
        ConfigError: eta is 0, or ``over_provision`` is below 1.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        over_provision: float = 1.25,
        unit: parts.Unit = "group",
        routing: str = "least_loaded",
    ) -> None:
        parts.one_of("unit", unit, parts.UNITS)
        if limits.eta == 0:
            raise ConfigError("limits.eta = 0: partial_rollout needs eta >= 1")
        parts.at_least("over_provision", over_provision, 1)
        self._round = math.ceil(over_provision * limits.train_batch_rollouts)
        self._unit = unit
        self._route = router(routing)
        self._updates = parts.WeightUpdates("interrupt", self._route)
        self._stopping = False

    def decide(self, event: Event, view: ClusterView) -> Iterator[Command]:
        """Stop a round when its batch is there, train, begin the next round."""
        if view.abandoned_groups:
            yield from parts.discard_abandoned(view)
        if not self._stopping and view.trainer_ready and parts.batch(view, self._unit):
            self._stopping = True
            for server in list(view.servers.values()):
                if server.rollouts:
                    yield InterruptRollouts(
                        rollout_ids=tuple(server.rollouts), server_id=server.server_id
                    )
        if self._stopping and view.running == 0:
            self._stopping = False
            yield from parts.train(view, self._unit)
            if not view.in_step and self._updates.generating:
                # A group was abandoned meanwhile and took part of the batch along: go on.
                yield from parts.resume(view, self._route)
        between = self._stopping or view.in_step
        if type(event) in parts.WeightUpdates.EVENTS:
            yield from self._updates.on(event, view, may_resume=not between)
        if self._updates.generating and not between:
            held = view.in_flight + view.awaiting_reward + len(view.ready)
            yield from parts.start(view, self._route, self._unit, self._round - held)
