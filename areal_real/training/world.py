"""The run's side of the trainer: has its processes started, commands them, notices their end.

No torch is imported here. Everything runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from areal_real.errors import BackendError, TrainerLost
from areal_real.placement.local import start_ranks
from areal_real.placement.roles import LOOPBACK, Contact, Ending, RankProcesses, StartRanks
from areal_real.training.control import PIECE_BYTES, encode, lines
from areal_real.training.launch import end_of_log
from areal_real.training.sender import WorldSender
from areal_real.training.settings import TrainerSettings
from areal_sched.errors import ConfigError

OnSpan = Callable[[str, int, int, int, int, int], None]
"""Takes activity (a `TrainerActivity`), weight version in the making, start_ns and end_ns on the
monotonic clock of this machine, waiting_ns (of the average process), micro_batches."""

TOKEN_TIMEOUT_S = 10.0
"""For whoever connects to name the secret."""

STOP_TIMEOUT_S = 10.0
"""For processes to end by themselves."""


class TrainerWorld:
    """A trainer: its processes, and the commands they take.

    One command at a time; another waits. Every command raises `TrainerLost`, with the end of the
    log, when the processes are gone or go while it runs.

    Args:
        settings: the trainer's.
        log: file that takes all output of the processes.
        on_span: told what the trainer did, as it happens.
        start: starts its processes; by default as children of this one.
        host: address of this machine to listen on, which rank 0 can reach.
        token: that rank 0 has to show; by default one that is made for this world.

    Attributes:
        lost: set to the `TrainerLost` when the processes end without having been told to.
        pids: of the processes, by rank, on their machines.
        sender: sends exported weights to servers, where the settings hold versions.
    """

    def __init__(
        self,
        settings: TrainerSettings,
        *,
        log: Path,
        on_span: OnSpan | None = None,
        start: StartRanks = start_ranks,
        host: str = LOOPBACK,
        token: str | None = None,
    ) -> None:
        self._settings = settings
        self._log = log
        self.on_span = on_span
        self._start_ranks = start
        self._host = host
        self._ranks: RankProcesses | None = None
        self._ending: asyncio.Task[Ending] | None = None
        self._burial: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._connected: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
        self._writer: asyncio.StreamWriter | None = None
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._busy = asyncio.Lock()
        self._stopping = False
        self._token = token or secrets.token_hex(32)
        self._dying = ""
        self.lost: asyncio.Future[TrainerLost]
        self.pids: list[int] = []
        self.sender = WorldSender(self._aside, "nccl" if settings.device == "cuda" else "gloo")

    async def start(self, folder: Path) -> None:
        """Start the processes and load a model, or take up a checkpoint.

        Args:
            folder: a model's Hugging Face folder, with or without weights, or what `save` wrote.

        Raises:
            ConfigError: the model or checkpoint cannot be trained with these settings.
            TrainerLost: the processes could not be started, or did not come up in time.
        """
        loop = asyncio.get_running_loop()
        self.lost = loop.create_future()
        self._connected = loop.create_future()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        server = await asyncio.start_server(self._accept, self._host, 0, limit=PIECE_BYTES)
        try:
            port = server.sockets[0].getsockname()[1]
            contact = Contact(host=self._host, port=port, token=self._token)
            try:  # outside of the time-out: on a cluster they may first wait for room
                self._ranks = await self._start_ranks(self._settings, contact, self._log)
            except BackendError as exc:
                raise TrainerLost(str(exc)) from exc
            async with asyncio.timeout(self._settings.start_timeout_s):
                self._ending = asyncio.create_task(self._ranks.one_ended())
                self._ending.add_done_callback(self._one_ended)
                waits: list[asyncio.Future[Any]] = [self._ending, self._connected]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if not self._connected.done():
                    raise TrainerLost(self._obituary())
                reader, self._writer = self._connected.result()
                self._watching = asyncio.create_task(self._watch(reader))
                await self._ask("start", folder=str(folder.resolve()))
        except TimeoutError:
            await self.stop()
            waited_s = self._settings.start_timeout_s
            raise TrainerLost(
                f"the trainer was not ready after {waited_s:g} s\n{end_of_log(self._log)}"
            ) from None
        except BaseException:
            await self.stop()
            raise
        finally:
            server.close()

    async def train(self, version: int, batch: Path) -> dict[str, float]:
        """One training step on a file that `Batch.save` wrote.

        Args:
            version: of the weights that come out.
            batch: the file.

        Returns:
            Statistics; see `areal_real.training.trainer.Trainer.train`.

        Raises:
            BackendError: the batch cannot be trained on, or the gradient is no finite number.
        """
        found: dict[str, float] = await self._ask("train", version=version, batch=str(batch))
        return found

    async def supervised(
        self, batch: Path, *, learning_rate: float, optimizer_steps: int = 1
    ) -> dict[str, float]:
        """Learn the batch's answers: the warm start before training on rewards.

        Args:
            batch: a file that `Batch.save` wrote.
            learning_rate: of these steps.
            optimizer_steps: the batch is cut into so many minibatches, in its order.

        Returns:
            Statistics: loss (mean negative log-likelihood of the answers' tokens), grad_norm, ...

        Raises:
            BackendError: as `train`.
        """
        found: dict[str, float] = await self._ask(
            "supervised",
            batch=str(batch),
            learning_rate=learning_rate,
            optimizer_steps=optimizer_steps,
        )
        return found

    async def logprobs(self, batch: Path) -> dict[int, list[float]]:
        """Log-probabilities of the batch's answers, by rollout, under the weights as they are."""
        found = await self._ask("logprobs", batch=str(batch))
        return {int(rollout_id): values for rollout_id, values in found.items()}

    async def export(self, folder: Path) -> None:
        """Write the weights as a Hugging Face folder; it is there whole or not at all.

        Raises:
            BackendError: it could not be written; what was there before is untouched.
        """
        await self._ask("export", folder=str(folder))

    async def save(self, folder: Path) -> None:
        """Write a checkpoint, whole or not at all; `start` takes it up, bit for bit.

        Raises:
            BackendError: it could not be written; what was there before is untouched.
        """
        await self._ask("save", folder=str(folder))

    async def stop(self) -> None:
        """End the processes, whatever they do; safe to call again."""
        self._stopping = True
        ranks, watching = self._ranks, self._watching
        if ranks is None:
            return
        assert self._ending is not None
        if self._writer is not None and not self._ending.done() and not self._busy.locked():
            with contextlib.suppress(BackendError, TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await self._ask("stop")
                    await ranks.all_ended()
        if self._connected.done():  # which `start` may not have come to see
            self._connected.result()[1].close()  # ends rank 0, also in the middle of a step
        await ranks.kill()
        self._ending.cancel()
        if watching is not None and watching is not asyncio.current_task():
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Someone connects; only who knows the secret is listened to."""
        known = False
        try:
            async with asyncio.timeout(TOKEN_TIMEOUT_S):
                line = await reader.readuntil()
            token = str(json.loads(line).get("token"))
            known = hmac.compare_digest(token.encode(), self._token.encode())
        except (
            *(OSError, TimeoutError, ValueError, AttributeError, RecursionError),
            *(asyncio.IncompleteReadError, asyncio.LimitOverrunError),
        ):
            pass
        finally:  # also where the run ends meanwhile
            if known and not self._stopping and not self._connected.done():
                self._connected.set_result((reader, writer))
            else:
                writer.close()

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        """Take answers until the other end is gone."""
        reason = ""
        try:
            async for line in lines(reader):
                self._take(json.loads(line))
        except ConnectionError:
            pass
        except Exception as exc:  # what we were sent, or who is told of spans
            reason = f"the trainer's message was not understood: {exc!r}"
        if self._stopping:
            error = TrainerLost("the trainer was stopped")
        else:
            assert self._ending is not None
            if not reason:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STOP_TIMEOUT_S):  # its last words, for the log
                        await asyncio.shield(self._ending)
            error = TrainerLost(reason or self._obituary())
            self.lost.set_result(error)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)

    def _take(self, message: dict[str, Any]) -> None:
        if "span" in message:
            if self.on_span is not None and self._ranks is not None:
                activity, version, start_ns, end_ns, *rest = message["span"]
                ahead_ns, now_ns = self._ranks.clock_ahead_ns, time.monotonic_ns()
                # Clocks drift apart, seconds in a day; what is told of has been.
                start_ns, end_ns = (min(at - ahead_ns, now_ns) for at in (start_ns, end_ns))
                self.on_span(activity, version, start_ns, end_ns, *rest)
        elif "pids" in message:
            self.pids = message["pids"]
        elif "dying" in message:
            self._dying = message["dying"]
        else:
            answer = self._answers.get(message["id"])
            if answer is None or answer.done():
                return  # whoever asked has been cancelled
            if "error" not in message:
                answer.set_result(message["result"])
            elif message["kind"] == "config":
                answer.set_exception(ConfigError(message["error"]))
            else:
                answer.set_exception(BackendError(message["error"]))

    async def _ask(self, command: str, **options: Any) -> Any:
        async with self._busy:
            return await self._send({"command": command, **options})

    async def _aside(self, what: str, **options: Any) -> Any:
        """Ask rank 0 beside the command in progress."""
        if not self._settings.held_versions:
            raise BackendError("the trainer holds no weights to send: held_versions = 0")
        return await self._send({"aside": what, "options": options})

    async def _send(self, message: dict[str, Any]) -> Any:
        if self._writer is None or self._watching is None:
            raise TrainerLost("the trainer was not started")
        if self._watching.done():
            raise self.lost.result() if self.lost.done() else TrainerLost("it was stopped")
        self._number += 1
        number = self._number
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(encode({"id": number, **message}))
            with contextlib.suppress(ConnectionError):  # `_watch` says what happened
                await self._writer.drain()
            return await answer
        finally:
            del self._answers[number]

    def _one_ended(self, ending: asyncio.Task[Ending]) -> None:
        """A process is gone: the others wait for it in vain."""
        if not ending.cancelled() and not self._stopping and self._ranks is not None:
            self._burial = asyncio.create_task(self._ranks.kill())

    def _obituary(self) -> str:
        assert self._ending is not None
        if not self._ending.done():
            return f"the trainer ended: {self._dying or 'it is gone'}\n{end_of_log(self._log)}"
        ending = self._ending.result()
        # What rank 0 dies of is often only that another died.
        how = (ending.rank == 0 and self._dying) or f"its rank {ending.rank} {ending.how}"
        return f"the trainer ended: {how}\n{end_of_log(ending.log)}"
