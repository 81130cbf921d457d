"""What one server did with its time, without a gap."""

from __future__ import annotations

import time
from collections.abc import Callable

from areal_sched.ids import ServerId
from areal_sched.measurements import ServerActivity, ServerSpan


class SpanLog:
    """Turns changes of activity into spans that tile the time from `begin` to `close`.

    Prefill and recomputation are not timed apart from decode here: ``prefill_ns`` and
    ``recompute_ns`` are 0. The steps of the engine tell (`areal_real.serving.steps`).

    Args:
        server_id: whose time.
        measure: takes each span.
    """

    def __init__(self, server_id: int, measure: Callable[[ServerSpan], None]) -> None:
        self._server_id = ServerId(server_id)
        self._measure = measure
        self._origin_ns: int | None = None  # None: nobody wants to know
        self._activity: ServerActivity = "idle"
        self._since_ns = 0
        self._generated_tokens = 0
        self._recomputed_tokens = 0

    def begin(self, clock_origin_ns: int, since_ns: int) -> None:
        """Keep account from `since_ns` on, a time of the run's clock.

        Args:
            clock_origin_ns: the run's clock is `time.monotonic_ns` less this.
            since_ns: not in the future.
        """
        self._origin_ns = clock_origin_ns
        self._since_ns = since_ns
        self._generated_tokens = self._recomputed_tokens = 0

    def be(self, activity: ServerActivity) -> bool:
        """The server now does this; returns whether it did something else before."""
        if activity == self._activity:
            return False
        if self._origin_ns is not None:
            self._end(time.monotonic_ns() - self._origin_ns, self._activity == "generate")
        self._activity = activity
        return True

    def generated(self, tokens: int) -> None:
        """Tokens have come in. They count in the span of generation they come in, or the next."""
        self._generated_tokens += tokens

    def recomputed(self, tokens: int) -> None:
        """Tokens were prefilled that had been in a KV cache before."""
        self._recomputed_tokens += tokens

    def close(self, end_ns: int) -> None:
        """The run ends at `end_ns`, on its clock; what comes later is not taken down."""
        if self._origin_ns is not None:
            self._end(end_ns, True)
            self._origin_ns = None

    def _end(self, now_ns: int, counts: bool) -> None:
        if now_ns <= self._since_ns:
            return
        self._measure(
            ServerSpan(
                server_id=self._server_id,
                activity=self._activity,
                start_ns=self._since_ns,
                end_ns=now_ns,
                prefill_ns=0,
                recompute_ns=0,
                generated_tokens=self._generated_tokens if counts else 0,
                recomputed_tokens=self._recomputed_tokens if counts else 0,
            )
        )
        self._since_ns = now_ns
        if counts:
            self._generated_tokens = self._recomputed_tokens = 0
