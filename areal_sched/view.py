"""What a scheduler may see: the state, read-only, after the event and every command so far.

A `Protocol` and not a copy: a copy per decision would cost more than the decision. Type checkers
refuse assignment through it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from areal_sched.ids import GroupId, RolloutId, ServerId, WeightVersion
from areal_sched.limits import Limits
from areal_sched.records import Group, Rollout, Server


class ClusterView(Protocol):
    """The cluster as a scheduler sees it."""

    @property
    def now_ns(self) -> int:
        """Time of the event being handled, nanoseconds since the run began."""

    @property
    def limits(self) -> Limits:
        """The bounds to keep."""

    @property
    def weight_version(self) -> WeightVersion:
        """Newest published weights; equals the training steps finished."""

    @property
    def trainer_ready(self) -> bool:
        """Whether a training step may start now."""

    @property
    def in_step(self) -> bool:
        """Whether a training step is in progress."""

    @property
    def servers(self) -> Mapping[ServerId, Server]:
        """Servers alive, by id, in the order they joined."""

    @property
    def pending(self) -> Mapping[GroupId, Group]:
        """Groups with rollouts still to start: replacements first, then in order of arrival."""

    @property
    def groups(self) -> Mapping[GroupId, Group]:
        """All groups that are not settled."""

    @property
    def complete_groups(self) -> Mapping[GroupId, Group]:
        """Groups all of whose rollouts are READY, in the order they became so."""

    @property
    def abandoned_groups(self) -> Mapping[GroupId, Group]:
        """Groups given up after too many failures that still have live rollouts."""

    @property
    def rollouts(self) -> Mapping[RolloutId, Rollout]:
        """Rollouts that are not settled, by id, in the order they started."""

    @property
    def interrupted(self) -> Mapping[RolloutId, Rollout]:
        """Rollouts in phase INTERRUPTED, in the order they were interrupted."""

    @property
    def ready(self) -> Mapping[RolloutId, Rollout]:
        """Rollouts in phase READY, in the order they were accepted."""

    @property
    def next_rollout_id(self) -> RolloutId:
        """The id the next started rollout must have; further ones count up from it."""

    @property
    def running(self) -> int:
        """Rollouts on servers, aborting ones included."""

    @property
    def in_flight(self) -> int:
        """Rollouts on servers or interrupted: what ``max_rollouts_in_flight`` bounds."""

    @property
    def open_groups(self) -> int:
        """Groups started and neither complete nor settled."""

    @property
    def awaiting_reward(self) -> int:
        """Rollouts in phase FINISHED."""

    @property
    def admitted(self) -> int:
        """Rollouts started and neither failed nor dropped: N_r of paper eq. 3."""

    def admission_budget(self) -> int | None:
        """Rollouts that may still start under eta (paper eq. 3); None if eta is unbounded."""

    def may_start(self) -> int:
        """Rollouts that may start now: what eta and ``max_rollouts_in_flight`` both allow."""

    def least_loaded(self) -> ServerId | None:
        """The server with the fewest rollouts, lowest id first; None without servers."""

    def least_kv(self) -> ServerId | None:
        """The server with the fewest known KV tokens, lowest id first; None without servers."""
