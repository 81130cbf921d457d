"""Raw requests to a server: what no well-behaved client would send."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from dataclasses import dataclass
from typing import Any

import psutil

from areal_real.serving.launch import ServerProcess

TOKEN_CHARACTERS = 64
ANSWER_S = 60.0
"""A machine that is busy may take so long to answer."""


@dataclass(frozen=True)
class Target:
    """A server, and its token."""

    server: ServerProcess
    token: str

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.server.url.removeprefix("http://").rpartition(":")
        return host, int(port)

    @property
    def shown(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes]:
        """Status and body; underscores in the names of headers are dashes."""
        connection = http.client.HTTPConnection(*self.address, timeout=ANSWER_S)
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            told.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, body, told)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def raw(self, *pieces: bytes) -> bytes:
        """What comes back for these bytes, which need not be HTTP, until the server closes.

        Sends no more once the server has answered or closed.
        """
        with socket.create_connection(self.address, timeout=ANSWER_S) as connection:
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    connection.sendall(piece)
            found = b""
            with contextlib.suppress(ConnectionError):
                while piece := connection.recv(2**16):
                    found += piece
            return found

    def generate(self) -> list[int]:
        """Three tokens, to see that it still does its work."""
        body = {
            "input_ids": [3, 4, 5],
            "sampling_params": {"max_new_tokens": 3, "ignore_eos": True},
        }
        status, answer = self.ask("POST", "/generate", json.dumps(body).encode(), **self.shown)
        assert status == 200, answer
        found: dict[str, Any] = json.loads(answer)
        assert len(found["output_ids"]) == 3
        return list(found["output_ids"])

    def resident_bytes(self) -> int:
        """Memory of the process that answers."""
        return int(psutil.Process(self.server.pid).memory_info().rss)


def status_of(answer: bytes) -> int:
    """Of a raw answer."""
    assert answer.startswith(b"HTTP/1.1 "), answer[:100]
    return int(answer.split()[1])
