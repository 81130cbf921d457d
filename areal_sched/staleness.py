"""Staleness, under its two names.

*Admission budget*: how many rollouts may still be **started** so that none is expected to be
consumed more than eta versions after its start. *Lag*: how old a trajectory **was** when it was
consumed. The first does not bound the second: an admitted rollout may be overtaken by shorter
ones, and then it waits. So both have a limit and a metric.
"""

from __future__ import annotations


def admission_budget(
    *, eta: int | None, weight_version: int, train_batch_rollouts: int, admitted_rollouts: int
) -> int | None:
    """How many more rollouts may start; None if eta is unbounded.

    Paper, section 5.1, eq. 3: floor((N_r - 1) / B) <= i + eta, with N_r the rollouts submitted so
    far (trained ones included, failed and dropped ones not), B the training batch and i the
    current version. Solved for N_r: N_r <= (i + eta + 1) * B.
    """
    if eta is None:
        return None
    return (weight_version + eta + 1) * train_batch_rollouts - admitted_rollouts


def lag(*, consuming_version: int, first_version: int) -> int:
    """Versions between a trajectory's oldest token and the policy that trains on it.

    Args:
        consuming_version: version of the policy at the start of the training step.
        first_version: version that generated the trajectory's first token.
    """
    return consuming_version - first_version
