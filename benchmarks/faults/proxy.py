"""A forward HTTP proxy between a run and its servers: loses, cuts and doubles what it is told to.

It is the one artificial part of the suite. Requests come in the form that HTTP proxies are sent,
one to a connection (the run's client keeps none alive), and go on to the real server.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import IO
from urllib.parse import urlsplit

LATE_S = 5.0


class Trick(Enum):
    """What becomes of a request."""

    LOSE = auto()
    """The server does its work; then the connection is reset, without a byte of the reply."""
    CUT = auto()
    """The reply is reset in its middle: after the first event of a stream, or half of a text."""
    SILENCE = auto()
    """As LOSE, but the connection stays open, and nothing ever comes."""
    LATE = auto()
    """The whole reply comes late, at once."""
    DOUBLE_EVENTS = auto()
    """Each event of a stream comes twice."""
    DOUBLE_REPLY = auto()
    """The reply comes twice on its connection."""
    DOUBLE_REQUEST = auto()
    """The server gets the request twice; its reply to the first is delivered."""
    SECOND_REPLY = auto()
    """The server gets the request twice; its reply to the second is delivered."""


@dataclass(slots=True)
class Rule:
    """A trick to play on the next requests for a path.

    Attributes:
        path: such as ``/generate``.
        trick: what to do.
        left: requests it is still to be played on.
        played: how often it has been, to the end.
    """

    path: str
    trick: Trick
    left: int
    played: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Proxy:
    """The proxy, on a port of its own; a context manager."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError, ValueError):
                    proxy._serve(self.request)

        socketserver.ThreadingTCPServer.request_queue_size = 128
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def play(self, path: str, trick: Trick, count: int = 1) -> Rule:
        """Play a trick on the next `count` requests for a path."""
        rule = Rule(path, trick, count)
        self._rules.append(rule)
        return rule

    def _rule(self, path: str) -> Rule | None:
        for rule in self._rules:
            with rule.lock:
                if rule.left and rule.path == path:
                    rule.left -= 1
                    return rule
        return None

    def _serve(self, client: socket.socket) -> None:
        request = client.makefile("rb")
        words = request.readline().decode("latin-1").split()
        if len(words) != 3:
            return
        target = urlsplit(words[1])
        head, body = _message(request)
        place = target.path + (f"?{target.query}" if target.query else "")
        text = f"{words[0]} {place} HTTP/1.1\r\n".encode() + head + b"\r\n" + body
        rule = self._rule(target.path)
        server = (target.hostname or "", target.port or 80)
        try:
            if rule is None:
                for data in _answer(server, text):
                    client.sendall(data)
            else:
                _TRICKS[rule.trick](client, server, text)
        except OSError:
            _reset(client)  # the server, or the run, has gone away
        finally:
            if rule is not None:
                with rule.lock:
                    rule.played += 1


Address = tuple[str, int]


def _message(stream: IO[bytes]) -> tuple[bytes, bytes]:
    """Head, each line with its end, and body of what has a content length or no body."""
    head, length = b"", 0
    while (line := stream.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
        head += line
    return head, stream.read(length)


def _answer(server: Address, text: bytes) -> Iterator[bytes]:
    """What a server answers, as it comes."""
    with socket.create_connection(server, 20) as upstream:
        upstream.settimeout(None)
        upstream.sendall(text)
        while data := upstream.recv(1 << 16):
            yield data


def _reset(client: socket.socket) -> None:
    """Close a connection with a reset instead of an end."""
    with contextlib.suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()


def _lose(client: socket.socket, server: Address, text: bytes) -> None:
    for _ in _answer(server, text):
        pass
    _reset(client)


def _cut(client: socket.socket, server: Address, text: bytes) -> None:
    answer = _answer(server, text)
    data = b""
    while not data.partition(b"\r\n\r\n")[2]:  # until some of the body is there
        data += next(answer)
    head, end, body = data.partition(b"\r\n\r\n")
    client.sendall(head + end + body[: max(1, len(body) // 2)])
    time.sleep(0.05)  # a reset overtakes what was sent before it
    answer.close()  # type: ignore[attr-defined]  # a generator
    _reset(client)


def _silence(client: socket.socket, server: Address, text: bytes) -> None:
    for _ in _answer(server, text):
        pass
    client.settimeout(600)
    client.recv(1)  # until the run closes it


def _late(client: socket.socket, server: Address, text: bytes) -> None:
    data = b"".join(_answer(server, text))
    time.sleep(LATE_S)
    client.sendall(data)


def _double_events(client: socket.socket, server: Address, text: bytes) -> None:
    """Each chunk of a chunked body is sent twice; SGLang sends an event as a chunk."""
    with socket.create_connection(server, 20) as upstream:
        upstream.settimeout(None)
        upstream.sendall(text)
        stream = upstream.makefile("rb")
        while (line := stream.readline()) not in (b"\r\n", b""):
            client.sendall(line)
        client.sendall(b"\r\n")
        while size := int(stream.readline() or b"0", 16):
            chunk = b"%x\r\n" % size + stream.read(size + 2)
            client.sendall(chunk if b"[DONE]" in chunk else chunk + chunk)
        client.sendall(b"0\r\n\r\n")


def _double_reply(client: socket.socket, server: Address, text: bytes) -> None:
    data = b"".join(_answer(server, text))
    client.sendall(data + data)


def _double_request(client: socket.socket, server: Address, text: bytes) -> None:
    _both(client, server, text, first=True)


def _second_reply(client: socket.socket, server: Address, text: bytes) -> None:
    _both(client, server, text, first=False)


def _both(client: socket.socket, server: Address, text: bytes, *, first: bool) -> None:
    other = threading.Event()

    def unheard() -> None:
        with contextlib.suppress(OSError):
            for _ in _answer(server, text):
                pass
        other.set()

    if first:
        answer = _answer(server, text)
        data = next(answer, b"")
        threading.Thread(target=unheard, daemon=True).start()
        client.sendall(data)
    else:
        threading.Thread(target=unheard, daemon=True).start()
        time.sleep(0.01)
        answer = _answer(server, text)
    for data in answer:
        client.sendall(data)
    client.shutdown(socket.SHUT_WR)
    other.wait(60)


_TRICKS = {
    Trick.LOSE: _lose,
    Trick.CUT: _cut,
    Trick.SILENCE: _silence,
    Trick.LATE: _late,
    Trick.DOUBLE_EVENTS: _double_events,
    Trick.DOUBLE_REPLY: _double_reply,
    Trick.DOUBLE_REQUEST: _double_request,
    Trick.SECOND_REPLY: _second_reply,
}
