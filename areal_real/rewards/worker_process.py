"""One reward worker as the pool sees it: a process, a pipe in, a pipe out."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from areal_real.rewards.errors import RewardFailed

_ROOT = Path(__file__).resolve().parents[2]
_REPLY_BYTES = 1 << 16
_LAST_WORDS_BYTES = 2000
_EXIT_S = 2.0  # from the end of its output to the end of a worker


class WorkerLost(Exception):
    """A worker died or was silent before it could judge.

    Attributes:
        again: nothing says that the answer is to blame, so another worker may try it.
    """

    def __init__(self, reason: str, *, again: bool) -> None:
        super().__init__(reason)
        self.again = again


class WorkerProcess:
    """A running worker. `ask` it one thing at a time; after an exception it is dead."""

    def __init__(self, process: asyncio.subprocess.Process, errors: IO[bytes]) -> None:
        self._process = process
        self._errors = errors
        self._last_words = ""
        self._killed = False
        self.pid = process.pid

    @classmethod
    async def spawn(cls, memory_bytes: int) -> WorkerProcess:
        """Start a worker; it is ready when it answers.

        Raises:
            OSError: no process could be started.
        """
        errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - `end` closes it
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "areal_real.rewards.worker", str(memory_bytes)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
                limit=_REPLY_BYTES,
                start_new_session=True,  # a Ctrl-C in the terminal does not reach it
            )
        except BaseException:
            errors.close()
            raise
        return cls(process, errors)

    @property
    def alive(self) -> bool:
        """Whether it can be asked, as far as is known."""
        return self._process.returncode is None and not self._killed

    async def ask(self, job: dict[str, Any], *, start_timeout_s: float, timeout_s: float) -> float:
        """Have an answer judged.

        Args:
            job: for the worker.
            start_timeout_s: until it begins; the first time it has libraries to load.
            timeout_s: from then on.

        Raises:
            WorkerLost: it did not begin in time, or died.
            RewardFailed: it took too long, or says that it cannot judge.
        """
        begun = False
        try:
            async with asyncio.timeout(start_timeout_s):
                await self._send(job)
                reply = await self._receive()
            if reply == {"begun": True}:
                begun = True
                async with asyncio.timeout(timeout_s):
                    reply = await self._receive()
            return parse_reply(reply)
        except TimeoutError:
            await self.end()
            if begun:
                reason = f"timed out after {timeout_s:g} s"
                raise RewardFailed(reason, of_answer=True) from None
            reason = f"worker did not begin within {start_timeout_s:g} s"
            raise WorkerLost(reason, again=True) from None
        except (EOFError, OSError, ValueError) as exc:
            status = await self.end(grace_s=_EXIT_S)
            # Killed from outside, as by the kernel when memory is short: not proof of guilt.
            again = not begun or status == -signal.SIGKILL
            raise WorkerLost(self._obituary(status, exc), again=again) from None
        except asyncio.CancelledError:
            self.kill()  # it would answer the wrong question next
            raise

    def kill(self) -> None:
        """Kill it and, through their tie to it, its sandboxes. Does not wait."""
        if self.alive:
            self._killed = True
            # Its own process group, while it is not reaped: nobody else can have the number.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    async def end(self, *, grace_s: float = 0.0) -> int:
        """Wait a moment for it to end by itself, then kill it; returns its exit status.

        May be called again, also at the same time.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._process.wait()
        self.kill()
        status = await self._process.wait()
        stdin = self._process.stdin
        if stdin is not None:
            stdin.close()
        if not self._errors.closed:
            size = os.fstat(self._errors.fileno()).st_size
            self._errors.seek(max(0, size - _LAST_WORDS_BYTES))
            self._last_words = self._errors.read().decode(errors="replace").strip()
            self._errors.close()
        return status

    async def _send(self, job: dict[str, Any]) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(json.dumps(job).encode() + b"\n")
        await stdin.drain()

    async def _receive(self) -> Any:
        stdout = self._process.stdout
        assert stdout is not None
        line = await stdout.readline()
        if not line.endswith(b"\n"):
            raise EOFError("its output ended")
        return json.loads(line)

    def _obituary(self, status: int, exc: Exception) -> str:
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        lines = self._last_words.splitlines()
        return f"worker {self.pid} died ({how}): {lines[-1] if lines else exc}"


def parse_reply(reply: Any) -> float:
    """Read a worker's reply.

    Raises:
        RewardFailed: it could not judge.
        ValueError: this is no reply.
    """
    match reply:
        case {"reward": float(reward)} if math.isfinite(reward):
            return reward
        case {"failed": str(reason), "of_answer": bool(of_answer)}:
            raise RewardFailed(reason, of_answer=of_answer)
    raise ValueError(f"not a reply of a reward worker: {str(reply)[:80]!r}")
