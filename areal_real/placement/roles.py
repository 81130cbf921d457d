"""What a run needs of whoever starts its processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from areal_real.serving.options import ServerOptions
from areal_real.training.settings import TrainerSettings

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """Where rank 0 of a trainer finds its run.

    Attributes:
        host, port: where the run listens.
        token: that rank 0 has to show there.
    """

    host: str
    port: int
    token: str = field(repr=False)


class Listener(Protocol):
    """Messages of a server's engine about its steps; see `areal_real.serving.steps`."""

    @property
    def received(self) -> deque[tuple[int, bytes, bytes]]:
        """Time of arrival on this machine's monotonic clock in ns, number, payload."""

    def close(self) -> None:
        """Listen no more; may be called again."""


class ServerHandle(Protocol):
    """A running inference server, wherever it runs."""

    @property
    def url(self) -> str:
        """Where it answers."""

    @property
    def pid(self) -> int:
        """Of its process on its machine, which leads a process group."""

    @property
    def alive(self) -> bool:
        """Whether its process runs, as far as is known (it may hang all the same)."""

    @property
    def ending(self) -> str:
        """How it ended, for messages."""

    def listen(self) -> Listener:
        """Hear of its engine's steps; the server was started with ``record_steps``."""

    async def stop(self) -> None:
        """End it in good order; may be called again."""

    async def bury(self) -> None:
        """End it at once, whatever is left of it; may be called again."""


class StartServer(Protocol):
    """Starts one server, again after each loss."""

    async def __call__(
        self, options: ServerOptions, model: Path, *, weight_version: int, log: Path
    ) -> ServerHandle:
        """Start it and wait until it answers.

        Args:
            options: how it is run.
            model: Hugging Face folder.
            weight_version: label of the weights in it.
            log: file its output is appended to.

        Raises:
            ServerStartFailed: it did not come up; nothing is left running.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The end of a trainer's process.

    Attributes:
        rank: whose.
        killed: by a signal or with its node, so not by what became of the others.
        how: for messages: the status or the signal.
        log: its output.
    """

    rank: int
    killed: bool
    how: str
    log: Path


class RankProcesses(Protocol):
    """The processes of one trainer, wherever they run."""

    @property
    def clock_ahead_ns(self) -> int:
        """How far the monotonic clock of rank 0's machine is ahead of ours."""

    async def one_ended(self) -> Ending:
        """Wait until a process has ended; returns the first that did."""

    async def all_ended(self) -> None:
        """Wait until none is left."""

    async def kill(self) -> None:
        """End all at once; returns when they are gone. May be called again."""


class StartRanks(Protocol):
    """Starts a trainer's processes, again after each loss."""

    async def __call__(
        self, settings: TrainerSettings, contact: Contact, log: Path
    ) -> RankProcesses:
        """Start them; returns at once.

        Args:
            settings: the trainer's.
            contact: where the run listens.
            log: takes rank 0's output; the others have files beside it.

        Raises:
            BackendError: they cannot be started; nothing is left running.
        """


class Placement(Protocol):
    """Decides where processes start.

    `areal_real.placement.local.LocalPlacement` and `areal_real.placement.on_ray.RayPlacement`.
    """

    @property
    def address(self) -> str:
        """Of this machine: where the run listens for its trainer."""

    def server(self, server_id: int) -> StartServer:
        """How this server is started."""

    def trainer(self) -> StartRanks:
        """How the trainer is started."""

    async def room_for(self, server_id: int) -> None:
        """Return when there is room for one more server; on one machine, never."""

    def release(self, server_id: int) -> None:
        """This server is not started again."""

    def on_crowded(self, make_room: Callable[[], None]) -> None:
        """Call this where the trainer finds no room: the run may give up a server for it."""


Note = Callable[[str], None]
"""Takes something people should know."""


def rank_log(log: Path, rank: int) -> Path:
    """The log of a trainer's process, beside that of rank 0."""
    return log if rank == 0 else log.with_name(f"{log.stem}-{rank}{log.suffix}")


def first_to_blame(endings: Sequence[Ending]) -> Ending:
    """Of processes found ended together, the one that most likely ended first.

    A process that is killed takes the others with it, which end with a status of their own.
    """
    return min(endings, key=lambda x: (not x.killed, x.rank))


def how_it_ended(status: int) -> str:
    """The end of a process, for messages."""
    return f"exited with status {status}" if status >= 0 else f"was killed by signal {-status}"
