"""What a server tells its surroundings, and what it keeps of each request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from areal_real.serving.options import Sampling
from areal_real.serving.segment import Progress, Segment
from areal_sched.measurements import EngineSteps, ServerSpan


class ServerHost(Protocol):
    """What a `ManagedServer` reports to; called in the event loop's thread, never concurrently.

    `areal_real.executor.RealExecutor` is one. A segment holds what was generated since the rollout
    was submitted, not what was before.
    """

    def finished(self, server_id: int, rollout_id: int, segment: Segment) -> None:
        """A rollout has its last token, even where it was being stopped at that moment."""

    def interrupted(
        self,
        server_id: int,
        weight_version: int,
        stopped: Sequence[tuple[int, Segment]],
    ) -> None:
        """These rollouts were stopped; what they generated is kept. ``stopped`` is not empty."""

    def rollout_failed(self, server_id: int, rollout_id: int, reason: str) -> None:
        """A rollout cannot go on: refused, or aborted (``reason`` is then ``aborted``)."""

    def loaded(self, server_id: int, weight_version: int) -> None:
        """The server now generates with these weights."""

    def lost(self, server_id: int, reason: str) -> None:
        """The server is gone, and with it every rollout that has not been reported."""

    def measure(self, span: ServerSpan | EngineSteps) -> None:
        """What the server did with some time, and what its engine did in it."""


@dataclass(slots=True, eq=False)
class Stop:
    """An interruption in progress: all that it cuts is reported at once.

    Attributes:
        for_load: weights are loaded once everything has stopped.
        waiting: rollouts that still run.
        cut: rollouts that have stopped.
        order: place of each rollout in the report: those that ran come first, in the order they
            were sent, then those that waited. Whoever resumes them in this order starts nothing
            before what was begun earlier.
    """

    for_load: bool

    waiting: set[int] = field(default_factory=set)
    cut: list[tuple[int, Segment]] = field(default_factory=list)
    order: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Request:
    """One rollout, or one question outside of the schedule, on its way through a server.

    Attributes:
        rollout_id: None for a question.
        input_ids: prompt, and what was answered before.
        max_new_tokens: at most.
        sampling: how tokens are drawn.
        resumed: its input was in a KV cache before.
        answer: of a question.
        rid: its name at the server, once sent.
        progress: what it has produced.
        task: that waits for the server's answer.
        aborted: it is to end, and to be lost.
        stop: it is to end, and to be kept.
    """

    rollout_id: int | None
    input_ids: Sequence[int]
    max_new_tokens: int
    sampling: Sampling
    resumed: bool = False
    answer: asyncio.Future[Segment] | None = None
    rid: str = ""
    progress: Progress = field(default_factory=Progress)
    task: asyncio.Task[None] | None = None
    aborted: bool = False
    stop: Stop | None = None

    def begin(self, rid: str, grown: Callable[[int], None]) -> None:
        """It is sent, under a new name and with nothing produced yet."""
        self.rid = rid
        self.progress = Progress(grown)
