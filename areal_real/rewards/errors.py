"""What can go wrong while answers are judged."""

from __future__ import annotations

from areal_real.errors import BackendError


class RewardFailed(BackendError):
    """An answer could not be judged, so it has no reward.

    Attributes:
        reason: one line for people.
        of_answer: the answer itself brought the judge down (it takes too long, or crashes it).
            False where the machine, the reference answer or the pool's end is to blame.
    """

    def __init__(self, reason: str, *, of_answer: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.of_answer = of_answer


class SandboxUnavailable(BackendError):
    """This machine cannot confine a program; the message says what is missing."""


class SandboxFailed(BackendError):
    """The sandbox did not start this time. Says nothing about the program in it."""
