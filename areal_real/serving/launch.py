"""One SGLang server as a process group of its own: started, watched, ended."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from areal_real.serving.client import ServerClient
from areal_real.serving.command import command_line, environment, hand_over_token
from areal_real.serving.errors import RequestRefused, ServerGone, ServerStartFailed
from areal_real.serving.options import ServerOptions
from areal_real.serving.ports import PortLease, listens
from areal_real.serving.steps import StepListener

POLL_S = 0.1
"""How often a starting server is asked whether it is ready, and a stopping one looked at."""

LOG_LINES = 25
"""Lines of the log that an error shows."""

LOG_LINE_BYTES = 300
"""How much of each; SGLang logs its configuration in one line of 16 kB."""

UNAUTHORISED = 401
"""HTTP status for who does not show the token."""

_PORT_TRIES = 3
_FOLDERS = "areal-sgl-"
_LOCK = "lock"
_SHARED_MEMORY = "shared-memory"
_LOADS = "/dev/shm/sglang_loads_"
_living: set[ServerProcess] = set()


class ServerProcess:
    """A running server. Made by `start_server`; ended by `stop`, or at the latest when we are.

    Attributes:
        url: where it answers.
        pid: of its process, which leads a process group of its own.
        log: file with its output.
        folder: private to it, with its sockets.
    """

    def __init__(
        self,
        options: ServerOptions,
        model: Path,
        *,
        weight_version: int,
        log: Path,
        gpus: Sequence[str] | None,
    ) -> None:
        self._options = options
        self.log = log
        self._lease = PortLease(options.host)
        _sweep()
        # Short: the path of a Unix socket in it has at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix=_FOLDERS))
        self._lock = (self.folder / _LOCK).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)  # until we are done with it, or dead
        host = f"[{options.host}]" if ":" in options.host else options.host
        self.url = f"http://{host}:{self._lease.port}"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = command_line(
            options,
            model,
            weight_version=weight_version,
            port=self._lease.port,
            folder=self.folder,
        )
        try:
            hand_over_token(options, self.folder)
            with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as output:
                # Not in a worker thread: the server dies with the thread that starts it.
                self._process = subprocess.Popen(
                    command,
                    env=environment(options, self.folder, gpus),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            self._clean_up()
            raise ServerStartFailed(f"cannot run {options.python}: {error}") from error
        self.pid = self._process.pid
        _living.add(self)

    @property
    def alive(self) -> bool:
        """Whether the process runs (it may hang all the same)."""
        if self._process.returncode is not None:
            return False
        # Without reaping it: while it is a zombie, its process group's number is not used again.
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return ended is None

    @property
    def ending(self) -> str:
        """How it ended, for messages."""
        code = self._process.returncode
        if code is None:
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return "is running"
            killed = ended.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
            code = -ended.si_status if killed else ended.si_status
        return f"exited with status {code}" if code >= 0 else f"was killed by signal {-code}"

    def listen(self) -> StepListener:
        """Hear of its engine's steps; it was started with ``record_steps``."""
        return StepListener(self.folder)

    def log_tail(self, lines: int = LOG_LINES) -> str:
        """The last lines of its log."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_LINE_BYTES * lines))
                text = file.read().decode(errors="replace")
        except OSError as error:
            return f"(no log: {error})"
        return "\n".join(line[:LOG_LINE_BYTES] for line in text.splitlines()[-lines:])

    async def wait_until_ready(self) -> None:
        """Until it answers.

        Raises:
            ServerStartFailed: it ended, or the time is over, or it answers everyone.
        """
        deadline = time.monotonic() + self._options.start_timeout_s
        async with (
            ServerClient(self.url, api_token=self._options.api_token) as client,
            ServerClient(self.url) as stranger,
        ):
            while True:
                if not self.alive:
                    raise self._failure(self.ending)
                if time.monotonic() > deadline:
                    raise self._failure(
                        f"was not ready after start_timeout_s = {self._options.start_timeout_s:g}"
                    )
                # Nobody else may have taken the port meanwhile, and be told the token.
                if listens(self.pid, self._lease.port):
                    with contextlib.suppress(ServerGone, RequestRefused):
                        await client.health(timeout_s=10)
                        break
                await asyncio.sleep(POLL_S)
            try:
                await stranger.health(timeout_s=10)
            except RequestRefused as refusal:
                if refusal.status != UNAUTHORISED:
                    raise self._failure(f"answers strangers: {refusal}") from None
            except ServerGone as error:
                raise self._failure(f"was ready, and then: {error}") from None
            else:
                raise self._failure("answers who shows no token")
            with contextlib.suppress(ServerGone, RequestRefused):  # it is only slower without
                await client.freeze()
        (self.folder / _SHARED_MEMORY).write_text("\n".join(_shared_memory_of(self.pid)))

    def _failure(self, what: str) -> ServerStartFailed:
        return ServerStartFailed(
            f"the server {what}; the last lines of {self.log}:\n{self.log_tail()}"
        )

    async def stop(self) -> None:
        """End its process group: SIGTERM, and SIGKILL after the grace; may be called again."""
        try:
            self._signal(signal.SIGTERM)
            deadline = time.monotonic() + self._options.stop_grace_s
            while self.alive and time.monotonic() < deadline:
                await asyncio.sleep(POLL_S / 2)
        finally:
            self.kill()

    async def bury(self) -> None:
        """As `kill`, without holding up the event loop."""
        await asyncio.to_thread(self.kill)

    def kill(self) -> None:
        """End its process group at once; may be called again."""
        if self in _living:
            _living.discard(self)
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._clean_up()

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def _clean_up(self) -> None:
        self._lease.release()
        _remove(self.folder)
        self._lock.close()


async def start_server(
    options: ServerOptions,
    model: Path,
    *,
    weight_version: int,
    log: Path,
    gpus: Sequence[str] | None = None,
) -> ServerProcess:
    """Start a server and wait until it answers.

    Call it in a thread that lives as long as the server should, as an event loop's does: the
    kernel ends the server with the thread that started it.

    Args:
        options: how it is run.
        model: Hugging Face folder.
        weight_version: label of the weights in it.
        log: file its output is appended to.
        gpus: of the host, which it may use; None for all.

    Raises:
        ServerStartFailed: it did not come up; nothing is left running.
    """
    for last in range(_PORT_TRIES - 1, -1, -1):
        server = ServerProcess(options, model, weight_version=weight_version, log=log, gpus=gpus)
        try:
            await server.wait_until_ready()
        except ServerStartFailed:
            taken = "address already in use" in server.log_tail().lower()
            server.kill()
            if not taken or not last:
                raise
        except BaseException:
            server.kill()
            raise
        else:
            return server
    raise AssertionError("unreachable")


def _shared_memory_of(group: int) -> list[str]:
    """SGLang's shared-memory file with load figures, which a killed server leaves behind."""
    found: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it may end meanwhile, or not be ours to look at
            if os.getpgid(int(process.name)) == group:
                words = (process / "maps").read_text().split()
                found |= {word for word in words if word.startswith(_LOADS)}
    return sorted(found)


def _remove(folder: Path) -> None:
    """What a server left behind."""
    with contextlib.suppress(OSError):
        for name in (folder / _SHARED_MEMORY).read_text().splitlines():
            if name.startswith(_LOADS):
                Path(name).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    """Remove what servers left behind whose parents were killed."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_FOLDERS}*/{_LOCK}"):
        with contextlib.suppress(OSError), lock.open("r+") as file:  # or it is not ours, or gone
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(lock.parent)


@atexit.register
def _kill_all() -> None:
    for server in list(_living):
        server.kill()
