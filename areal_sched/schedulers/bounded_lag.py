"""Bounded lag: admit freely, drop what would be trained too late.

Source: prime-rl's maximum off-policy level, NeMo-RL's maximum trajectory age.
"""

from __future__ import annotations

from collections.abc import Iterator

from areal_sched import parts
from areal_sched.commands import Command, UpdateMode
from areal_sched.errors import ConfigError
from areal_sched.events import Event, TrainStepFinished
from areal_sched.ids import GroupId
from areal_sched.limits import Limits
from areal_sched.routing import router
from areal_sched.view import ClusterView


class BoundedLag:
    """What exceeds ``max_lag`` versions is given up, with unit ``group`` its whole group.

    Args:
        limits: ``max_lag`` must be set; ``eta`` may be infinite.
        unit: as for `areal_sched.schedulers.areal.Areal`.
        routing: as for `areal_sched.schedulers.areal.Areal`.
        mode: as for `areal_sched.schedulers.areal.Areal`.
        servers_at_once: as for `areal_sched.schedulers.areal.Areal`.

    Raises:
        ConfigError: ``max_lag`` is not set.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        unit: parts.Unit = "group",
        routing: str = "least_loaded",
        mode: UpdateMode = "in_place",
        servers_at_once: int | None = None,
    ) -> None:
        parts.one_of("unit", unit, parts.UNITS)
        if limits.max_lag is None:
            raise ConfigError("limits.max_lag is not set: bounded_lag needs it")
        self._unit = unit
        self._max_lag = limits.max_lag
        self._given_up: set[GroupId] = set()
        self._route = router(routing, spare_loading=servers_at_once is not None)
        self._updates = parts.WeightUpdates(
            mode, self._route, barrier=False, servers_at_once=servers_at_once
        )

    def decide(self, event: Event, view: ClusterView) -> Iterator[Command]:
        """Give up what became too old with the new version, then go on like AReaL."""
        if type(event) is TrainStepFinished:
            oldest = view.weight_version - self._max_lag
            late = [r for r in view.rollouts.values() if r.first_version < oldest]
            if self._unit == "group":
                self._given_up.update(r.group.group_id for r in late)
            else:
                yield from parts.give_up(late)
        for group_id in sorted(self._given_up):
            # Remembered until it is gone: an aborted rollout may have finished first.
            if group_id in view.groups:
                yield from parts.give_up(view.groups[group_id].rollouts.values())
            else:
                self._given_up.remove(group_id)
        if type(event) in parts.WeightUpdates.EVENTS:
            yield from self._updates.on(event, view)
        if view.abandoned_groups:
            yield from parts.discard_abandoned(view)
        yield from parts.train(view, self._unit)
        if self._updates.generating:
            yield from parts.start(view, self._route, self._unit)
