"""The bounds every scheduler has to keep. The state enforces those it can see."""

from __future__ import annotations

from dataclasses import dataclass

from areal_sched.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of a run.

    Attributes:
        train_batch_rollouts: trajectories of one training step, B in the paper.
        group_size: rollouts of one prompt.
        eta: staleness bound at admission, in versions (paper eq. 3); None means unbounded.
        max_lag: bound on the lag at consumption, in versions; None means unbounded.
        max_rollouts_in_flight: rollouts on servers or waiting to be resumed, over the cluster.
        max_failures_per_group: after so many failed rollouts a group is given up.

    Raises:
        ConfigError: a bound is out of range; the message names it.
    """

    train_batch_rollouts: int
    group_size: int = 1
    eta: int | None = 0
    max_lag: int | None = None
    max_rollouts_in_flight: int = 8192
    max_failures_per_group: int = 3

    def __post_init__(self) -> None:
        for name, least in (
            ("train_batch_rollouts", 1),
            ("group_size", 1),
            ("max_rollouts_in_flight", 1),
            ("max_failures_per_group", 0),
        ):
            _check(name, getattr(self, name), least)
        for name in ("eta", "max_lag"):
            if getattr(self, name) is not None:
                _check(name, getattr(self, name), 0)
        if self.train_batch_rollouts % self.group_size:
            raise ConfigError(
                f"limits.train_batch_rollouts = {self.train_batch_rollouts} is no multiple of "
                f"limits.group_size = {self.group_size}"
            )
        if self.max_rollouts_in_flight < self.group_size:
            raise ConfigError(
                f"limits.max_rollouts_in_flight = {self.max_rollouts_in_flight} has no room for "
                f"one group of {self.group_size}"
            )


def _check(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"limits.{name} = {value!r}: expected a whole number >= {least}")
