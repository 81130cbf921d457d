"""The proxy of the fault suite does to a reply what it is told, and to no other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import aiohttp
import pytest

from benchmarks.faults.proxy import Proxy, Trick

EVENTS = [b"data: 1\n\n", b"data: 2\n\n", b"data: [DONE]\n\n"]


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[bytes]

    def do_POST(self) -> None:
        self.seen.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        for event in EVENTS:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    handler = type("Handler", (Server,), {"seen": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.05,))
        thread.start()
        yield found
        found.shutdown()
        thread.join()


async def _ask(proxy: Proxy, server: ThreadingHTTPServer) -> bytes:
    url = f"http://127.0.0.1:{server.server_address[1]}/generate"
    connector = aiohttp.TCPConnector(force_close=True)
    async with (
        aiohttp.ClientSession(proxy=proxy.url, connector=connector) as session,
        session.post(url, json={"a": 1}) as response,
    ):
        return await response.read()


def ask(proxy: Proxy, server: ThreadingHTTPServer) -> bytes:
    return asyncio.run(_ask(proxy, server))


WHOLE = b"".join(EVENTS)


@pytest.mark.parametrize(
    ("trick", "answer", "requests"),
    [
        (Trick.LOSE, None, 1),
        (Trick.CUT, None, 1),
        (Trick.DOUBLE_EVENTS, EVENTS[0] * 2 + EVENTS[1] * 2 + EVENTS[2], 1),
        (Trick.DOUBLE_REPLY, None, 1),  # which the library takes for a broken one
        (Trick.DOUBLE_REQUEST, WHOLE, 2),
        (Trick.SECOND_REPLY, WHOLE, 2),
    ],
)
def test_a_trick_is_played_once(
    server: ThreadingHTTPServer, trick: Trick, answer: bytes | None, requests: int
) -> None:
    seen = server.RequestHandlerClass.seen  # type: ignore[attr-defined]
    with Proxy() as proxy:
        assert ask(proxy, server) == WHOLE
        rule = proxy.play("/generate", trick)
        if answer is None:
            with pytest.raises(aiohttp.ClientError):
                ask(proxy, server)
        else:
            assert ask(proxy, server) == answer
        for _ in range(100):
            if rule.played:
                break
            threading.Event().wait(0.05)
        assert rule.played == 1
        assert len(seen) == 1 + requests
        assert ask(proxy, server) == WHOLE
