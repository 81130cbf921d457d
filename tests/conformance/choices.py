"""Where an adversary's decisions come from: a byte string, and calm after its end."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Temper:
    """How a fake cluster misbehaves while its choices last.

    Attributes:
        servers: how many there are.
        fault_rate: how many of 256 happenings are faults.
        slow: kinds of happening that wait, 15 times of 16, until nothing else can happen.
        faults: the kinds of fault that may occur.
        kinds_first: choose among kinds of happening, then within the kind; otherwise among all
            happenings at once, so that what is numerous happens more often.
    """

    servers: int = 2
    fault_rate: int = 0
    slow: frozenset[str] = frozenset()
    faults: frozenset[str] = field(
        default_factory=lambda: frozenset({"rollout", "reward", "server", "step"})
    )
    kinds_first: bool = True


class Choices:
    """Numbers made of bytes. Zero is the mildest choice, and all that is left at the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._next = 0

    @property
    def calm(self) -> bool:
        """Whether the bytes are used up."""
        return self._next >= len(self._data)

    def below(self, n: int) -> int:
        """A number in 0 ... n - 1; n at most 256."""
        if n <= 1 or self.calm:
            return 0
        byte = self._data[self._next]
        self._next += 1
        return byte * n >> 8

    def happens(self, times_in_256: int) -> bool:
        """True so many times in 256."""
        return times_in_256 > 0 and not self.calm and self.below(256) >= 256 - times_in_256

    @classmethod
    def seeded(cls, seed: int, length: int) -> Choices:
        """So many pseudo-random bytes."""
        return cls(random.Random(seed).randbytes(length))
