"""What the fake cluster knows of its rollouts and servers."""

from __future__ import annotations

from dataclasses import dataclass, field

from areal_sched import LoadWeights
from areal_sched.ids import GroupId, RolloutId, ServerId, WeightVersion


@dataclass
class FakeRollout:
    """The truth about a rollout, of which a scheduler knows what was reported.

    ``place``: server, held, reward, ready, training, trained, failed or dropped.
    ``stint_version``: weights it began to run with where it is now; None while it waits there.
    """

    rollout_id: RolloutId
    group_id: GroupId
    server_id: ServerId
    place: str = "server"
    tokens: int = 0
    stint_version: WeightVersion | None = None
    first_version: WeightVersion | None = None
    aborted: bool = False


@dataclass
class FakeServer:
    """One server. ``before``: what was on it when it was told to load."""

    server_id: ServerId
    weight_version: WeightVersion
    up: bool = False
    load: LoadWeights | None = None
    reported: bool = False
    before: set[RolloutId] = field(default_factory=set)
    asked: set[RolloutId] = field(default_factory=set)
