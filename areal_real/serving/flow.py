"""Requests on their way through one server: queued, sent, stopped, settled."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

from areal_real.errors import BackendError
from areal_real.placement.roles import StartServer
from areal_real.serving.client import ServerClient
from areal_real.serving.errors import RequestRefused, ServerGone
from areal_real.serving.host import Request, ServerHost, Stop
from areal_real.serving.life import ServerLife
from areal_real.serving.options import ServerOptions
from areal_real.serving.segment import Segment, empty_segment
from areal_real.serving.spans import SpanLog
from areal_real.serving.steps import StepLog

ABORT_REPEAT_S = 0.25
"""An abort that overtook its request found nothing to abort: it is sent again so often."""

ABORT_PATIENCE_S = 3.0
"""Then the connection is closed: what was to be lost is lost, whatever the server does."""

STOP_PATIENCE_S = 20.0
"""The same for what is to be kept: a reply that got lost on its way never comes, however often the
server is told to abort what it has long ended."""


class RequestFlow(ServerLife):
    """A server's requests. At most ``max_running_rollouts`` are with SGLang, the rest wait here."""

    def __init__(
        self,
        server_id: int,
        host: ServerHost,
        options: ServerOptions,
        log_folder: Path,
        start: StartServer,
    ) -> None:
        super().__init__(server_id, options, log_folder, start)
        self._host = host
        self._spans = SpanLog(server_id, host.measure)
        self._steps = StepLog(server_id, host.measure)
        self._queue: deque[Request] = deque()
        self._running: dict[str, Request] = {}
        self._open = False  # the gate from the queue to the server
        self._loading = False  # in the midst of taking in weights
        self._waits_for_resume = False
        self._serial = 0

    def streamed(self) -> dict[int, int]:
        """Tokens known of each rollout that SGLang works on; 0 throughout without streaming."""
        return {
            request.rollout_id: len(request.progress)
            for request in self._running.values()
            if request.rollout_id is not None
        }

    # ---- in ------------------------------------------------------------------------------------

    def _take(self, request: Request) -> None:
        wrong = self.refusal(request.input_ids, request.max_new_tokens)
        if wrong is not None:
            self._fail(request, RequestRefused("generate", 400, wrong))
            return
        self._waits_for_resume = False
        self._queue.append(request)
        self._pump()

    def _pump(self) -> None:
        """Send what may be sent, and note what the server now does."""
        client = self._client
        while (
            client is not None
            and self._open
            and self._queue
            and len(self._running) < self.max_running_rollouts
        ):
            request = self._queue.popleft()
            self._serial += 1
            # The dot ends the name: SGLang aborts whatever begins with the name it is given.
            name = "q" if request.rollout_id is None else f"r{request.rollout_id}"
            request.begin(f"{name}-{self._serial}.", self._spans.generated)
            self._running[request.rid] = request
            request.task = self._spawn(self._run(client, request))
        self._note()

    def _note(self) -> None:
        """Keep the account of the server's time."""
        if not self.alive:
            self._spans.be("down")
        elif self._loading or not (self._open or self._running):
            self._spans.be("load")
        elif self._running:
            if self._spans.be("generate"):
                self._steps.generating()
        else:
            self._spans.be("paused" if self._waits_for_resume else "idle")

    async def _run(self, client: ServerClient, request: Request) -> None:
        """Send a request and see it through."""
        try:
            segment = await client.generate(
                request.input_ids,
                request.max_new_tokens,
                request.sampling,
                rid=request.rid,
                cache_key=f"weights-{self.weight_version}",
                progress=request.progress,
            )
        except ServerGone as error:
            if not await self._survives(error):
                return
            # Just a dropped connection. What has come is kept; the server should not go on.
            with contextlib.suppress(BackendError):
                await client.abort(request.rid)
            segment = request.progress.partial()
        except BackendError as error:
            if self._running.pop(request.rid, None) is not None:
                self._fail(request, error)
                self._settle_stop(request)
                self._pump()
            return
        if self._running.pop(request.rid, None) is not None:
            if request.resumed and len(segment):
                self._spans.recomputed(len(request.input_ids) - segment.cached_tokens)
            self._settle(request, segment)
            self._pump()

    # ---- out -----------------------------------------------------------------------------------

    def _settle(self, request: Request, segment: Segment) -> None:
        """Report how a request ended."""
        rollout_id = request.rollout_id
        if rollout_id is None:
            if segment.finish == "abort":
                self._queue.appendleft(request)
            elif request.answer is not None and not request.answer.done():
                request.answer.set_result(segment)
        elif segment.finish != "abort":
            self._host.finished(self.server_id, rollout_id, segment)
            self._settle_stop(request)
        elif request.stop is not None:
            request.stop.cut.append((rollout_id, segment))
            self._settle_stop(request)
        elif request.aborted:
            self._host.rollout_failed(self.server_id, rollout_id, "aborted")
        else:
            self._host.interrupted(self.server_id, self.weight_version, [(rollout_id, segment)])

    def _settle_stop(self, request: Request) -> None:
        if request.stop is not None and request.rollout_id is not None:
            request.stop.waiting.discard(request.rollout_id)
            self._report(request.stop)

    def _report(self, stop: Stop) -> None:
        """Once nothing of an interruption runs any more."""
        if not stop.waiting and stop.cut:
            cut, stop.cut = sorted(stop.cut, key=lambda x: stop.order[x[0]]), []
            self._waits_for_resume |= stop.for_load
            self._host.interrupted(self.server_id, self.weight_version, cut)

    def _fail(self, request: Request, error: BackendError) -> None:
        if request.rollout_id is not None:
            self._host.rollout_failed(self.server_id, request.rollout_id, str(error))
        elif request.answer is not None and not request.answer.done():
            request.answer.set_exception(error)

    # ---- stopping ------------------------------------------------------------------------------

    def _interrupt(self, rollout_ids: set[int]) -> None:
        """Stop these rollouts and report them together."""
        stop = self._begin_stop(rollout_ids, for_load=False)
        running = [request for request in self._running.values() if request.stop is stop]
        if running:
            self._spawn(self._abort_until_gone(running))

    async def _abort_all(self, client: ServerClient) -> None:
        """Until nothing runs; the gate must be closed."""
        give_up_s = time.monotonic() + STOP_PATIENCE_S
        while self._running:
            await client.abort_all()
            await self._settling(self._running.values(), ABORT_REPEAT_S)
            if time.monotonic() > give_up_s:
                self._give_up(list(self._running.values()))

    def _begin_stop(self, rollout_ids: set[int] | None, *, for_load: bool) -> Stop:
        """Mark these rollouts, or all; what is queued is cut at once."""
        stop = Stop(for_load=for_load)
        withdrawn = [r.rollout_id for r in self._withdraw(rollout_ids) if r.rollout_id is not None]
        stop.cut += [(rollout_id, empty_segment()) for rollout_id in withdrawn]
        for request in self._running.values():
            rollout_id = request.rollout_id
            if rollout_id is None or request.aborted or request.stop is not None:
                continue
            if rollout_ids is None or rollout_id in rollout_ids:
                request.stop = stop
                stop.waiting.add(rollout_id)
                stop.order[rollout_id] = len(stop.order)
        for rollout_id in withdrawn:
            stop.order[rollout_id] = len(stop.order)
        self._report(stop)
        return stop

    def _withdraw(self, rollout_ids: set[int] | None) -> list[Request]:
        """Take rollouts out of the queue; None takes all of them, but no question."""
        taken: list[Request] = []
        kept: deque[Request] = deque()
        for request in self._queue:
            rollout_id = request.rollout_id
            wanted = rollout_ids is None or rollout_id in rollout_ids
            (taken if wanted and rollout_id is not None else kept).append(request)
        self._queue = kept
        return taken

    def _drop(self, request: Request) -> None:
        """Nobody waits for this question any more."""
        if request in self._queue:
            self._queue.remove(request)
        elif self._running.pop(request.rid, None) is not None and request.task is not None:
            request.task.cancel()
            self._pump()

    async def _abort_until_gone(self, requests: Sequence[Request]) -> None:
        """Abort requests one by one, again and again: an early abort finds nothing to abort."""
        begun_s = time.monotonic()
        while pending := [request for request in requests if request.rid in self._running]:
            # While paused, an abort of a request that has not begun is taken for done, and is not.
            if not self._not_held.is_set():
                await self._not_held.wait()
                begun_s = time.monotonic()
            client = self._client
            if client is None:
                return
            try:
                await asyncio.gather(*(client.abort(request.rid) for request in pending))
            except BackendError as error:
                if not await self._survives(error):
                    return
            await self._settling(pending, ABORT_REPEAT_S)
            waited_s = time.monotonic() - begun_s
            if waited_s > ABORT_PATIENCE_S:
                self._give_up(r for r in pending if r.aborted or waited_s > STOP_PATIENCE_S)

    def _give_up(self, requests: Iterable[Request]) -> None:
        """Wait no longer for aborts to take effect: what has come of a request is all there is."""
        for request in requests:
            if self._running.pop(request.rid, None) is not None:
                if request.task is not None:
                    request.task.cancel()
                self._settle(request, request.progress.partial())
        self._pump()

    @staticmethod
    async def _settling(requests: Iterable[Request], timeout_s: float | None) -> None:
        """Until these requests have settled, or for that long."""
        tasks = [request.task for request in requests if request.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
