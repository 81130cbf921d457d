"""The life of one server's process: started, watched, lost, restarted, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from areal_real.errors import BackendError
from areal_real.placement.roles import Listener, ServerHandle, StartServer
from areal_real.serving.client import ServerClient
from areal_real.serving.collective import WeightSender, open_group, update_by_collective
from areal_real.serving.errors import RequestRefused, ServerGone
from areal_real.serving.options import ServerOptions

WATCH_S = 0.1
"""How often it is looked whether the process still runs."""

LAST_WORDS_S = 2.0
"""A process whose connections break may need so long to end."""

LOAD_TRIES_S = (0.2, 1.0)
"""Waits before weights that a server refused are offered again: a file system may lag behind."""


class ServerLife(ABC):
    """A server's process and its client; subclasses add what it works on.

    Attributes:
        server_id: its id.
        weight_version: weights it generates with.
        alive: False before `start`, and between a loss and `restart`.
        max_running_rollouts, kv_cache_tokens: what the server has, known once started.
    """

    def __init__(
        self,
        server_id: int,
        options: ServerOptions,
        log_folder: Path,
        start: StartServer,
    ) -> None:
        self.server_id = server_id
        self.weight_version = 0
        self.alive = False
        self.max_running_rollouts = options.max_running_rollouts
        self.kv_cache_tokens = options.kv_cache_tokens or 0
        self._options = options
        self._log = log_folder / f"server-{server_id}.log"
        self._start_process = start
        self._process: ServerHandle | None = None
        self._client: ServerClient | None = None
        self._listener: Listener | None = None
        self._vocabulary: int | None = None
        self._lives = 0
        self._group: tuple[WeightSender, str] | None = None
        self._not_held = asyncio.Event()  # cleared while generation is paused
        self._not_held.set()
        self._suspicion: asyncio.Task[bool] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()  # end with the life
        self._burials: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str | None:
        """Where it answers; None while it is down."""
        return None if self._client is None else self._client.url

    @property
    def pid(self) -> int | None:
        """Of its process, which leads a process group; None while it is down."""
        return None if self._process is None else self._process.pid

    # ---- start and end -------------------------------------------------------------------------

    async def start(self, folder: Path, version: int) -> None:
        """Start it, or start it again after a loss; returns when it can be used.

        Args:
            folder: Hugging Face folder with configuration and weights.
            version: of these weights.

        Raises:
            BackendError: it did not come up; nothing is left running.
            RuntimeError: it is up already.
        """
        if self.alive:
            raise RuntimeError(f"server {self.server_id} is up")
        await asyncio.gather(*self._burials, return_exceptions=True)
        options = self._options
        process = await self._start_process(options, folder, weight_version=version, log=self._log)
        client = ServerClient(
            process.url,
            api_token=options.api_token,
            request_timeout_s=options.request_timeout_s,
            stream_interval_tokens=options.stream_interval_tokens,
        )
        try:
            info = await client.probe(timeout_s=options.start_timeout_s)
        except BaseException:
            await client.close()
            await process.bury()
            raise
        if options.record_steps:
            self._listener = process.listen()
        state = info["internal_states"][0]
        self.max_running_rollouts = min(
            options.max_running_rollouts, state["effective_max_running_requests_per_dp"]
        )
        self.kv_cache_tokens = info["max_total_num_tokens"]
        self._vocabulary = _vocabulary(folder)
        self._process, self._client = process, client
        self._lives += 1
        self.weight_version = version
        self.alive = True
        self._not_held.set()
        self._spawn(self._watch(process))
        self._spawn(self._feel_pulse(client))
        self._began()

    async def stop(self) -> None:
        """End it by our will: nothing more is reported but its last span; may be called again."""
        process, client = self._end(None)
        if client is not None:
            with contextlib.suppress(BackendError, TimeoutError):  # it ends sooner without work
                async with asyncio.timeout(1):
                    await client.abort_all()
            await client.close()
        if process is not None:
            await process.stop()
        await asyncio.gather(*self._burials, return_exceptions=True)

    def lose(self, reason: str) -> None:
        """It is dead to us: report it, and make sure that it is dead."""
        if self.alive:
            process, client = self._end(reason)
            burial = asyncio.create_task(_bury(process, client))
            self._burials.add(burial)
            burial.add_done_callback(self._burials.discard)

    def _end(self, reason: str | None) -> tuple[ServerHandle | None, ServerClient | None]:
        process, client = self._process, self._client
        self._process = self._client = None
        self._hear()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        self._tasks.clear()
        self._suspicion = None
        self._not_held.set()
        if self._group is not None:
            sender, group = self._group
            self._group = None
            burial = asyncio.create_task(_leave(sender, group))
            self._burials.add(burial)
            burial.add_done_callback(self._burials.discard)
        if self.alive or reason is None:
            self.alive = False
            self._ended(reason)
        return process, client

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[Any]) -> None:
        """A task that breaks leaves a server that we know too little of: it is given up."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.lose(f"an answer of it was not understood: {error!r}")

    @abstractmethod
    def _began(self) -> None:
        """A life begins."""

    @abstractmethod
    def _ended(self, reason: str | None) -> None:
        """A life is over; by our will, if there is no reason."""

    @abstractmethod
    def _hear(self) -> None:
        """Write down what the engine has told of its steps."""

    @property
    @abstractmethod
    def _taking_weights(self) -> bool:
        """Whether weights are being loaded, and the server may be silent for long."""

    # ---- supervision ---------------------------------------------------------------------------

    async def _watch(self, process: ServerHandle) -> None:
        """Find out soon that the process has ended."""
        while process.alive:
            await asyncio.sleep(WATCH_S)
        self.lose(f"its process {process.ending}")

    async def _feel_pulse(self, client: ServerClient) -> None:
        """Find out in the end that it hangs. Not while weights are loaded: that has its limit."""
        while True:
            await asyncio.sleep(self._options.health_interval_s)
            if self._taking_weights:
                continue
            for last in (False, True):
                try:
                    await client.probe(timeout_s=self._options.health_timeout_s)
                except RequestRefused:
                    break  # it speaks
                except ServerGone as error:
                    if last and not self._taking_weights:
                        # If its process has ended, `_watch` says so, and ends this.
                        await asyncio.sleep(2 * WATCH_S)
                        self.lose(f"it does not answer: {error}")
                        return
                else:
                    break

    async def _survives(self, error: BackendError) -> bool:
        """After a broken connection: whether the server lives. If not, it is reported lost."""
        if not self.alive:
            return False
        if self._suspicion is None or self._suspicion.done():
            self._suspicion = self._spawn(self._examine(error))
        life = self._lives
        survives = await asyncio.shield(self._suspicion)
        return survives and life == self._lives

    async def _examine(self, error: BackendError) -> bool:
        process, client = self._process, self._client
        if process is None or client is None:
            return False
        for _ in range(round(LAST_WORDS_S / WATCH_S)):
            try:
                await client.health(timeout_s=self._options.health_timeout_s)
                return True
            except RequestRefused:
                return True
            except ServerGone:
                await asyncio.sleep(WATCH_S)
            if not process.alive:
                break
        self.lose(f"its process {process.ending} after: {error}")
        return False

    # ---- weights -------------------------------------------------------------------------------

    async def _take_in(
        self, client: ServerClient, version: int, source: Path | WeightSender
    ) -> None:
        """Weights into a server that generates nothing, or is paused."""
        if isinstance(source, Path):
            for wait_s in (*LOAD_TRIES_S, None):
                try:
                    await client.update_from_disk(source, version)
                    return
                except RequestRefused:
                    if wait_s is None:
                        raise
                await asyncio.sleep(wait_s)
            return
        if self._group is None or self._group[0] is not source:
            group = f"weights-{self.server_id}-{self._lives}-{version}"
            self._group = (source, group)
            await open_group(
                client, source, group=group, tensor_parallel=self._options.tensor_parallel
            )
        await update_by_collective(client, source, group=self._group[1], version=version)

    def refusal(self, input_ids: Sequence[int], max_new_tokens: int) -> str | None:
        """Why the server must not be asked for this; None if it may."""
        if not input_ids or max_new_tokens < 1:
            return f"nothing to do: {len(input_ids)} input tokens, {max_new_tokens} to generate"
        if self._vocabulary is not None:
            # SGLang does not check, and dies of it.
            wrong = [token for token in input_ids if not 0 <= token < self._vocabulary]
            if wrong:
                return f"token id {wrong[0]} is outside of a vocabulary of {self._vocabulary}"
        return None


async def _bury(process: ServerHandle | None, client: ServerClient | None) -> None:
    if process is not None:
        await process.bury()
    if client is not None:
        await client.close()


async def _leave(sender: WeightSender, group: str) -> None:
    with contextlib.suppress(BackendError):
        await sender.leave(group)


def _vocabulary(folder: Path) -> int | None:
    """Size of a model's vocabulary, if its configuration says."""
    try:
        size = json.loads((folder / "config.json").read_text())["vocab_size"]
    except (OSError, ValueError, KeyError):
        return None
    return int(size)
