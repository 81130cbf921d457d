"""TCP ports for servers, so that two started at once, by whomever, do not get the same one."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import IO

import psutil

from areal_real.serving.errors import ServerStartFailed

FIRST_PORT, LAST_PORT = 20000, 29999
"""Below the range from which Linux takes ports for outgoing connections (32768 to 60999), so that
none of those takes a port between its choice and the server's start."""

_TRIES = 200


class PortLease:
    """A port that is free now and that nobody else who asks here gets until it is released.

    Held by a lock on a file, which the kernel drops if this process dies.

    Raises:
        ServerStartFailed: no port was free.
    """

    def __init__(self, host: str) -> None:
        folder = Path(tempfile.gettempdir()) / f"areal-real-ports-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        numbers = random.Random(f"{os.getpid()} {os.urandom(8).hex()}")
        for _ in range(_TRIES):
            self.port = numbers.randint(FIRST_PORT, LAST_PORT)
            lock = (folder / str(self.port)).open("w")
            if _locked(lock) and _bindable(host, self.port):
                self._lock = lock
                return
            lock.close()
        raise ServerStartFailed(f"no free port between {FIRST_PORT} and {LAST_PORT} on {host}")

    def release(self) -> None:
        """Let others have it; may be called again."""
        self._lock.close()


def listens(pid: int, port: int) -> bool:
    """Whether a process of ours, and no other, is whom connections to a port here reach."""
    try:
        found = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:  # it is gone
        return False
    return any(x.status == psutil.CONN_LISTEN and x.laddr.port == port for x in found)


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _bindable(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
