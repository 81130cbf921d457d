"""The unit of all speed figures: one push-pop-call on a bare `heapq` of 1000 pending events."""

from __future__ import annotations

import random
import time
from heapq import heappop, heappush

PENDING = 1000
"""Events pending, as in a simulation of a few hundred servers."""


class _Event:
    __slots__ = ("fired",)

    def __init__(self) -> None:
        self.fired = 0

    def fire(self, time_: float) -> None:
        self.fired += 1


def bare_loop_per_s(count: int = 400_000) -> float:
    """Push-pop-calls a second; entries are (time, priority, order, event), as SimPy's are."""
    uniform = random.Random(1).random
    heap = [(uniform(), 1, order, _Event()) for order in range(PENDING)]
    heap.sort()
    order = PENDING
    began_s = time.perf_counter()
    for _ in range(count):
        time_, priority, _, event = heappop(heap)
        event.fire(time_)
        order += 1
        heappush(heap, (time_ + uniform(), priority, order, event))
    return count / (time.perf_counter() - began_s)
