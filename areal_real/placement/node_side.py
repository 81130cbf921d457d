"""What runs on the nodes of a Ray cluster: actors that hold a process and its resources.

An actor lives in the main thread of a Ray worker, which the kernel ties the process to: when the
worker is gone, so is the process. Nothing of the run is decided here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import areal_real
import areal_sched
from areal_real.errors import BackendError
from areal_real.placement.roles import LOOPBACK, Contact
from areal_real.serving.launch import ServerProcess, start_server
from areal_real.serving.options import ServerOptions
from areal_real.serving.ports import PortLease
from areal_real.serving.steps import StepListener
from areal_real.training.launch import COMMAND, environment
from areal_real.training.settings import TrainerSettings

_BOOT = Path("/proc/sys/kernel/random/boot_id")


@functools.cache
def source_sha256() -> str:
    """Of the code that a run's processes are made of."""
    found = hashlib.sha256()
    for package in (areal_real, areal_sched):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            found.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return found.hexdigest()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What an actor is told of its run.

    Attributes:
        folder: the run's directory, which every node has to see.
        sha256: of the run's code.
        cluster: whether processes listen on their node's address, or on loopback.
        address: of the run's node; on another one a process that listens on loopback is of no use.
    """

    folder: Path
    sha256: str
    cluster: bool
    address: str


def boot_id() -> str:
    """The same for all processes whose monotonic clocks agree."""
    return _BOOT.read_text().strip()


class NodeActor:
    """What both kinds of actors have.

    Args:
        site: see `Site`.
    """

    def __init__(self, site: Site) -> None:
        import ray

        self._site = site
        self._node = str(ray.util.get_node_ip_address())
        self._address = self._node if site.cluster else LOOPBACK
        self._name = f"node {self._node} ({socket.gethostname()})"

    def check(self) -> None:
        """Make sure that a process of the run can work here.

        Raises:
            BackendError: the node has other code, does not see the run's directory, or could not
                be reached.
        """
        if not self._site.cluster and self._node != self._site.address:
            raise BackendError(
                f"{self._name} is not the run's own ({self._site.address}), and with real.listen ="
                ' "loopback" they could not reach each other; "cluster" would do'
            )
        if source_sha256() != self._site.sha256:
            raise BackendError(
                f"{self._name} has other code than the run: install the same version of areal-lab"
                " on every node"
            )
        if not (self._site.folder / "config.toml").is_file():
            raise BackendError(
                f"{self._name} does not see {self._site.folder}: the run's directory has to be on a"
                " file system that all nodes share, under the same path"
            )

    def clock(self) -> tuple[str, int]:
        """Whose monotonic clock this is, and what it shows."""
        return boot_id(), time.monotonic_ns()


class ServerActor(NodeActor):
    """One inference server's process."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._process: ServerProcess | None = None
        self._listener: StepListener | None = None

    def start(
        self, options: ServerOptions, model: Path, weight_version: int, log: Path
    ) -> dict[str, Any]:
        """Start it and wait until it answers; what a `ServerHandle` tells of it.

        Raises:
            ServerStartFailed: it did not come up; nothing is left running.
        """
        here = dataclasses.replace(options, host=self._address, python=sys.executable)
        self._process = asyncio.run(
            start_server(here, model, weight_version=weight_version, log=log)
        )
        if options.record_steps:
            self._listener = self._process.listen()
        return {"url": self._process.url, "pid": self._process.pid, "node": self._name}

    def look(self) -> tuple[str | None, list[tuple[int, bytes, bytes]]]:
        """How it has ended, None if it has not; and what its engine told since the last look."""
        assert self._process is not None
        ending = None if self._process.alive else self._process.ending
        told: list[tuple[int, bytes, bytes]] = []
        while self._listener is not None and self._listener.received:
            told.append(self._listener.received.popleft())
        return ending, told

    def stop(self) -> None:
        """End it in good order."""
        if self._process is not None:
            asyncio.run(self._process.stop())

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()


class RankActor(NodeActor):
    """One process of a trainer."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._process: subprocess.Popen[bytes] | None = None
        self._lease: PortLease | None = None

    def meet(self) -> tuple[str, int]:
        """Address and port where this process, as rank 0, will meet the others."""
        self._lease = PortLease(self._address)
        return self._address, self._lease.port

    def start(
        self,
        settings: TrainerSettings,
        contact: Contact,
        rank: int,
        store: tuple[str, int],
        log: Path,
    ) -> int:
        """Start it; returns its process id.

        Raises:
            OSError: it cannot be started.
        """
        variables = environment(
            settings,
            contact,
            rank=rank,
            local_rank=0,  # Ray shows each actor only the GPU that is its own
            store=store,
            listen=self._address,
            gpus=None,
        )
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=variables,
                start_new_session=True,
            )
        return self._process.pid

    def look(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
