"""The channel between a run and its trainer: JSON lines over a socket.

Rank 0 connects to the run and names a secret that it has from its environment. Then the run sends
``{"id": 1, "command": "train", ...}``, and rank 0 answers ``{"id": 1, "result": ...}`` or
``{"id": 1, "error": "...", "kind": "..."}``; in between come ``{"span": [...]}``. A message
``{"id": 2, "aside": "send", "options": {...}}`` does not wait for the command in progress. Nothing
is unpickled. Imports no torch.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import socket
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

HOST_VARIABLE = "AREAL_TRAINER_HOST"
PORT_VARIABLE = "AREAL_TRAINER_PORT"
TOKEN_VARIABLE = "AREAL_TRAINER_TOKEN"
SETTINGS_VARIABLE = "AREAL_TRAINER_SETTINGS"
STORE_VARIABLE = "AREAL_TRAINER_STORE"
LISTEN_VARIABLE = "AREAL_TRAINER_LISTEN"
PARENT_VARIABLE = "AREAL_TRAINER_PARENT"
"""The process that has to live; see `areal_real.training.launch.environment` for the others."""

RUN_IS_GONE = 3
"""Exit status of a rank 0 whose run is gone."""

LONGEST_LINE_BYTES = 2**28
"""Log-probabilities of ten million tokens. More is no message; the channel is closed."""

PIECE_BYTES = 2**16
"""Read at a time. A stranger, who has not named the secret, can make the run hold twice as much."""


def encode(message: dict[str, Any]) -> bytes:
    """One line."""
    return json.dumps(message).encode() + b"\n"


async def lines(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines, as they come.

    Raises:
        ValueError: one is longer than any message.
    """
    rest = bytearray()
    while piece := await reader.read(PIECE_BYTES):
        *whole, tail = piece.split(b"\n")
        for line in whole:
            yield bytes(rest + line)
            rest.clear()
        rest += tail
        if len(rest) > LONGEST_LINE_BYTES:
            raise ValueError(f"a line of more than {LONGEST_LINE_BYTES} bytes")


class Channel:
    """Rank 0's end. The process ends when the other end is gone.

    Attributes:
        on_aside: takes messages that do not wait, on the reading thread.
    """

    def __init__(self) -> None:
        self.on_aside: Callable[[dict[str, Any]], None] | None = None
        self._socket = socket.create_connection(
            (os.environ[HOST_VARIABLE], int(os.environ[PORT_VARIABLE]))
        )
        # Otherwise a result waits 40 ms for the acknowledgement of the span sent before it.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._sending = threading.Lock()
        self.send({"token": os.environ.pop(TOKEN_VARIABLE)})
        threading.Thread(target=self._read, daemon=True, name="commands").start()

    def send(self, message: dict[str, Any]) -> None:
        """Send one message; from any thread."""
        with self._sending:
            self._socket.sendall(encode(message))

    def receive(self) -> dict[str, Any]:
        """Wait for the next command."""
        return self._commands.get()

    def _read(self) -> None:
        try:
            with self._socket.makefile("rb") as file:
                while line := file.readline(LONGEST_LINE_BYTES + 1):
                    message = json.loads(line)
                    if "aside" in message and self.on_aside is not None:
                        self.on_aside(message)
                    else:
                        self._commands.put(message)
        finally:
            # Also in the middle of a step: nobody is left who wants it.
            os._exit(RUN_IS_GONE)
