"""One real inference server as the executor sees it; the counterpart of `areal_sim.server`.

Commands return at once, outcomes are reported to a `ServerHost`. Requests wait here behind a gate,
which an update closes: what has not begun runs on the new weights, and its prompt is prefilled by
them. Each weight version has a key of its own in the server's prefix cache. Thus an in-place
update, which keeps the KV caches of what runs, leaves none behind that a later request could hit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from areal_real.errors import BackendError
from areal_real.placement.roles import StartServer
from areal_real.serving.client import ServerClient
from areal_real.serving.collective import WeightSender
from areal_real.serving.errors import ServerGone
from areal_real.serving.flow import RequestFlow
from areal_real.serving.host import Request, ServerHost
from areal_real.serving.launch import start_server
from areal_real.serving.options import Sampling, ServerOptions
from areal_real.serving.segment import Segment
from areal_sched.commands import UpdateMode

HEAR_STEPS_S = 0.5
"""How often the steps of the engine are written down; each has its own time already."""


class WeightSupply(Protocol):
    """Where published weights are."""

    def folder(self, version: int) -> Path:
        """A Hugging Face folder with them, for a server that starts or that reads from disk."""

    @property
    def sender(self) -> WeightSender | None:
        """Who sends them to servers that run; None: they read them from disk."""


class ManagedServer(RequestFlow):
    """One inference server.

    First `start`, perhaps `use`, then `begin`; `restart` after a loss; in the end `stop`.

    Args:
        server_id: its id.
        host: see `ServerHost`.
        options: how it is run.
        sampling: how the tokens of rollouts are drawn.
        weights: see `WeightSupply`.
        log_folder: its output goes there.
        start: starts its process, again after each loss; by default as a child of this one.
    """

    def __init__(
        self,
        server_id: int,
        host: ServerHost,
        options: ServerOptions,
        sampling: Sampling,
        weights: WeightSupply,
        *,
        log_folder: Path,
        start: StartServer = start_server,
    ) -> None:
        super().__init__(server_id, host, options, log_folder, start)
        self._sampling = sampling
        self._weights = weights
        self._begun = False
        self._lost_early: str | None = None

    async def use(self, version: int) -> None:
        """Before `begin`: load these weights, and tell nobody.

        Raises:
            BackendError: it cannot.
        """
        client = self._client
        if client is None or self._begun:
            raise BackendError(f"server {self.server_id}: {self._lost_early or 'not started'}")
        await self._take_in(client, version, self._weights.folder(version))
        self.weight_version = version

    def begin(self, clock_origin_ns: int, since_ns: int, version: int) -> None:
        """From here on hear commands and report; the run takes the server for joined.

        Args:
            clock_origin_ns: the run's clock is `time.monotonic_ns` less this.
            since_ns: when, on that clock, its account of time begins.
            version: weights the run takes it to have.

        Raises:
            RuntimeError: it has others.
        """
        if self.alive and version != self.weight_version:
            raise RuntimeError(
                f"server {self.server_id} has weights {self.weight_version}, not {version}"
            )
        self._begun = True
        self._note()  # what it does now: one that is not started yet is down, and not idle
        self._spans.begin(clock_origin_ns, since_ns)
        self._steps.begin(clock_origin_ns)
        reason = self._lost_early
        if reason is not None:
            asyncio.get_running_loop().call_soon(
                self._host.lost, self.server_id, reason
            )  # after it was heard to have joined

    async def restart(self, version: int) -> None:
        """Start it again after a loss, with these weights; it is then usable, and may be joined.

        Raises:
            BackendError: it did not come up; nothing is left running.
        """
        await self.start(self._weights.folder(version), version)

    # ---- commands ------------------------------------------------------------------------------
    # A dead server takes no notice of them: its loss is being reported, and settles what they
    # were about.

    def submit(
        self,
        rollout_id: int,
        input_ids: Sequence[int],
        max_new_tokens: int,
        *,
        resumed: bool = False,
    ) -> None:
        """Take a rollout, new or interrupted before; ends in finished, interrupted or failed.

        Args:
            rollout_id: its id.
            input_ids: prompt, and what was answered before.
            max_new_tokens: at most.
            resumed: there was an answer before, whose prefill is a recomputation.
        """
        if self.alive:
            self._take(Request(rollout_id, input_ids, max_new_tokens, self._sampling, resumed))

    def interrupt(self, rollout_ids: Iterable[int]) -> None:
        """Stop these rollouts and report them together, but for those that finish first."""
        if self.alive:
            self._interrupt(set(rollout_ids))

    def abort(self, rollout_ids: Iterable[int]) -> None:
        """Stop these rollouts; each is reported as failed, or as finished if it was faster.

        One that is being interrupted is reported as that.
        """
        wanted = set(rollout_ids)
        for request in self._withdraw(wanted):
            if request.rollout_id is not None:
                self._host.rollout_failed(self.server_id, request.rollout_id, "aborted")
        running = [r for r in self._running.values() if r.rollout_id in wanted and r.stop is None]
        for request in running:
            request.aborted = True
        if running:
            self._spawn(self._abort_until_gone(running))

    def load(self, version: int, mode: UpdateMode) -> None:
        """Load published weights; ends with `ServerHost.loaded`, or with the server lost.

        With ``interrupt`` everything in flight or waiting is reported once, as interrupted, before
        the weights are loaded; nothing is reported if there is nothing. With ``in_place`` a
        request that is on its way when it begins may still find prefixes of the old weights.

        Args:
            version: what to load.
            mode: what becomes of running rollouts; see `areal_sched.commands.UpdateMode`.

        Raises:
            RuntimeError: a load is in progress.
        """
        if not self.alive:
            return
        client = self._client
        if client is None or not self._open:
            raise RuntimeError(f"server {self.server_id} is loading weights already")
        self._open = False
        if mode == "interrupt":
            self._begin_stop(None, for_load=True)  # what comes from now on is not meant
        self._spawn(self._load(client, version, mode))

    async def ask(
        self, input_ids: Sequence[int], max_new_tokens: int, sampling: Sampling
    ) -> Segment:
        """Generate outside of the schedule, as for an evaluation; an update begins it anew.

        Raises:
            RequestRefused: the server will not.
            ServerGone: the server is or was lost.
        """
        if not self.alive:
            raise ServerGone(f"server {self.server_id} is down")
        answer: asyncio.Future[Segment] = asyncio.get_running_loop().create_future()
        request = Request(None, input_ids, max_new_tokens, sampling, answer=answer)
        self._take(request)
        try:
            return await answer
        finally:
            if answer.cancelled():
                self._drop(request)

    def close_spans(self, end_ns: int) -> None:
        """The run ends at `end_ns`, on its clock: tell the span in progress."""
        self._spans.close(end_ns)
        self._hear()
        self._steps.close()

    # ---- weights -------------------------------------------------------------------------------

    async def _load(self, client: ServerClient, version: int, mode: UpdateMode) -> None:
        """Bring weights in; the gate is closed."""
        try:
            if mode == "interrupt":
                await self._abort_all(client)
            elif mode == "drain":
                while self._running:
                    await self._settling(self._running.values(), None)
            self._loading = True
            self._note()
            if mode == "in_place":
                self._not_held.clear()
                await client.pause("in_place")
            await self._take_in(client, version, await self._source(version))
            if mode == "in_place":
                await client.resume()
                self._not_held.set()
        except BackendError as error:
            self.lose(f"it could not load weights {version}: {error}")
            return
        self.weight_version = version
        self._loading = False
        self._open = True
        self._pump()
        self._host.loaded(self.server_id, version)

    async def _source(self, version: int) -> Path | WeightSender:
        """Who has these weights: the sender, or if it holds them no more, the disk."""
        sender = self._weights.sender
        if sender is not None:
            try:
                await sender.buckets(version)
                return sender
            except BackendError:
                pass
        return self._weights.folder(version)

    @property
    def _taking_weights(self) -> bool:
        return self._loading

    # ---- life ----------------------------------------------------------------------------------

    def _began(self) -> None:
        self._open = True
        self._note()
        self._spawn(self._hear_steps())

    async def _hear_steps(self) -> None:
        while True:
            await asyncio.sleep(HEAR_STEPS_S)
            self._hear()

    def _hear(self) -> None:
        if self._listener is not None:
            self._steps.take(self._listener.received)

    def _ended(self, reason: str | None) -> None:
        streamed = [
            (request.rollout_id, request.progress.partial())
            for request in self._running.values()
            if request.rollout_id is not None and len(request.progress)
        ]
        questions = [r.answer for r in (*self._running.values(), *self._queue) if r.answer]
        self._running.clear()
        self._queue.clear()
        self._open = self._loading = self._waits_for_resume = False
        for answer in questions:
            if not answer.done():
                answer.set_exception(ServerGone(f"server {self.server_id} is down"))
        self._note()
        if reason is None:
            return
        if not self._begun:
            self._lost_early = reason
            return
        if streamed:
            self._host.interrupted(self.server_id, self.weight_version, streamed)
        self._host.lost(self.server_id, reason)
