"""Processes of a run as children of it, on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from areal_real.errors import BackendError
from areal_real.placement.roles import (
    LOOPBACK,
    Contact,
    Ending,
    StartRanks,
    StartServer,
    first_to_blame,
    how_it_ended,
    rank_log,
)
from areal_real.serving.launch import start_server
from areal_real.serving.ports import PortLease
from areal_real.training.launch import COMMAND, environment
from areal_real.training.settings import TrainerSettings
from areal_sched.errors import ConfigError


class LocalRanks:
    """A trainer's processes as our children; a `areal_real.placement.roles.RankProcesses`."""

    clock_ahead_ns = 0

    def __init__(self, lease: PortLease) -> None:
        self._lease = lease
        self._processes: list[asyncio.subprocess.Process] = []
        self._logs: list[Path] = []
        self._ends: list[asyncio.Task[int]] = []

    @property
    def pids(self) -> list[int]:
        """Of the processes, by rank."""
        return [process.pid for process in self._processes]

    async def add(self, log: Path, variables: dict[str, str]) -> None:
        """Start the next rank."""
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *COMMAND,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=variables,
                start_new_session=True,  # Ctrl-C is for the run
            )
        self._processes.append(process)
        self._logs.append(log)
        self._ends.append(asyncio.create_task(process.wait()))

    async def one_ended(self) -> Ending:
        """Wait until a process has ended; returns the first that did."""
        await asyncio.wait(self._ends, return_when=asyncio.FIRST_COMPLETED)
        return first_to_blame(
            [
                Ending(
                    rank=rank,
                    killed=process.returncode < 0,
                    how=how_it_ended(process.returncode),
                    log=log,
                )
                for rank, (process, log) in enumerate(zip(self._processes, self._logs, strict=True))
                if process.returncode is not None
            ]
        )

    async def all_ended(self) -> None:
        """Wait until none is left."""
        await asyncio.wait(self._ends)

    async def kill(self) -> None:
        """End all at once; returns when they are gone. May be called again."""
        for process in self._processes:
            if process.returncode is None:
                # Its own group, while it is not reaped: nobody else can have the number.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        if self._ends:
            await asyncio.wait(self._ends)
        self._lease.release()


async def start_ranks(
    settings: TrainerSettings, contact: Contact, log: Path, *, gpus: Sequence[str] | None = None
) -> LocalRanks:
    """Start a trainer's processes here; see `areal_real.placement.roles.StartRanks`.

    Args:
        settings: the trainer's.
        contact: where the run listens.
        log: takes rank 0's output; the others have files beside it.
        gpus: that they may use; None: all.

    Raises:
        BackendError: they cannot be started; nothing is left running.
    """
    lease = PortLease(LOOPBACK)
    ranks = LocalRanks(lease)
    try:
        for rank in range(settings.processes):
            variables = environment(
                settings,
                contact,
                rank=rank,
                local_rank=rank,
                store=(LOOPBACK, lease.port),
                listen=LOOPBACK,
                gpus=gpus,
            )
            await ranks.add(rank_log(log, rank), variables)
    except OSError as exc:
        await ranks.kill()
        raise BackendError(f"the trainer's process {rank} cannot be started: {exc}") from exc
    except BaseException:
        await ranks.kill()
        raise
    return ranks


class LocalPlacement:
    """Everything on this machine; a `areal_real.placement.roles.Placement`.

    Args:
        server_gpus: GPUs of one server; 0 on the CPU.
        servers: how many there are; the trainer has the GPUs after theirs.
        trainer_gpus: GPUs of the trainer; 0 on the CPU.
    """

    address = LOOPBACK

    def __init__(self, *, server_gpus: int = 0, servers: int = 0, trainer_gpus: int = 0) -> None:
        self._server_gpus = server_gpus
        self._servers = servers
        self._trainer_gpus = trainer_gpus

    def server(self, server_id: int) -> StartServer:
        """How this server is started."""
        gpus = gpus_of(server_id * self._server_gpus, self._server_gpus)
        return functools.partial(start_server, gpus=gpus)

    def trainer(self) -> StartRanks:
        """How the trainer is started."""
        gpus = gpus_of(self._servers * self._server_gpus, self._trainer_gpus)
        return functools.partial(start_ranks, gpus=gpus)

    async def room_for(self, server_id: int) -> None:
        """Never returns: a machine does not grow."""
        await asyncio.Event().wait()

    def release(self, server_id: int) -> None:
        """Nothing is held for a server that does not run."""

    def on_crowded(self, make_room: Callable[[], None]) -> None:
        """Never: on one machine processes share what there is."""


def gpus_of(first: int, count: int) -> Sequence[str] | None:
    """So many GPUs of those this process may use, as ``CUDA_VISIBLE_DEVICES`` names them.

    Args:
        first: position of the first among them.
        count: 0 on the CPU.

    Returns:
        Numbers or UUIDs; None for a run on the CPU.

    Raises:
        ConfigError: ``CUDA_VISIBLE_DEVICES`` leaves too few.
    """
    if count == 0:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [str(number) for number in range(first, first + count)]
    ours = [part.strip() for part in visible.split(",") if part.strip()]
    if len(ours) < first + count:
        raise ConfigError(
            f"CUDA_VISIBLE_DEVICES={visible}: leaves {len(ours)} GPUs, and the run needs at least"
            f" {first + count}; fewer real.server.count would do, or more GPUs"
        )
    return ours[first : first + count]
