"""What can go wrong in the real world and is no event of a run."""

from __future__ import annotations

from areal_sched.errors import ArealError


class BackendError(ArealError):
    """A server, the trainer or a reward worker did not do what it was asked to.

    The executor turns it into an event where the run can go on, and stops the run where not.
    """


class TrainerLost(BackendError):
    """The trainer's processes are gone, or do not answer any more."""
