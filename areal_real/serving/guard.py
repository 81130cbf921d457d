"""Stands before SGLang's HTTP server, in its process: who may ask, for what, with how much.

SGLang's own key leaves some doors open: probes that make it generate, a WebSocket, requests of any
size, routes that unpickle what they are sent; and it logs the key. So SGLang is given no key. Every
request and every WebSocket comes here first, has to show the run's token, and has to be one of the
few that a run makes. Imports nothing of ours and no SGLang: launchers load this file by its path.
"""

from __future__ import annotations

import functools
import hmac
import json
import os
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

TOKEN_FILE_VARIABLE = "AREAL_SERVER_TOKEN_FILE"
"""Environment variable: the file with the token."""

LARGEST_BODY_BYTES = 16 * 2**20
"""Of a request. A million token ids, or the names of a large model's tensors, are 8 MB."""

ROUTES = frozenset(
    {
        ("GET", "/health"),
        ("GET", "/model_info"),
        ("GET", "/server_info"),
        ("GET", "/metrics"),  # where `real.server.extra_args` has it: Prometheus can show a token
        ("POST", "/abort_request"),
        ("POST", "/begin_weight_update"),
        ("POST", "/continue_generation"),
        ("POST", "/destroy_weights_update_group"),
        ("POST", "/end_weight_update"),
        ("POST", "/flush_cache"),
        ("POST", "/freeze_gc"),
        ("POST", "/generate"),
        ("POST", "/init_weights_update_group"),
        ("POST", "/pause_generation"),
        ("POST", "/update_weights_from_disk"),
        ("POST", "/update_weights_from_distributed"),
    }
)
"""What a run asks for. All else is not there: routes that unpickle, profile, or write files."""

_NUMBERS = ("max_new_tokens", "stream_interval", "temperature", "top_p", "min_p", "top_k")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI application around another one.

    Refuses with 401 without the token, before anything of the body is read; with 404 what is not
    in `ROUTES`; with 413 a body over `LARGEST_BODY_BYTES`; with 400 sampling parameters of text,
    which SGLang compares with numbers; and closes every WebSocket.

    Args:
        app: the application.
        token: that requests have to show, as ``Authorization: Bearer TOKEN``.

    Raises:
        ValueError: the token is empty.
    """

    def __init__(self, app: App, token: str) -> None:
        if not token:
            raise ValueError("a server needs a token")
        self._app = app
        self._shown = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the start and the end of the server."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": f"{scope['type']}.close", "code": 1008})
        elif not self._knows(scope):
            await _refuse(send, 401, "the run's token is missing or wrong")
        elif (scope["method"], scope["path"]) not in ROUTES:
            await _refuse(send, 404, "a run has no use for this")
        elif (body := await _body(scope, receive)) is None:
            await _refuse(send, 413, f"a body of more than {LARGEST_BODY_BYTES} bytes")
        elif scope["path"] == "/generate" and (name := _no_number(body)):
            await _refuse(send, 400, f"sampling_params.{name} has to be a number")
        else:
            await self._app(scope, _after(body, receive), send)

    def _knows(self, scope: Scope) -> bool:
        shown = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(shown) == 1 and hmac.compare_digest(shown[0], self._shown)


async def _body(scope: Scope, receive: Receive) -> bytes | None:
    """The whole body; None if it is too large, which is known as soon as it is announced."""
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > LARGEST_BODY_BYTES:
            return None
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return bytes(body)  # the client is gone: the application finds out by itself
        body += message.get("body", b"")
        if len(body) > LARGEST_BODY_BYTES:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _no_number(body: bytes) -> str | None:
    """A sampling parameter that should be a number and is not; of no JSON SGLang says more."""
    try:
        told = json.loads(body)["sampling_params"]
        return next((x for x in _NUMBERS if not isinstance(told.get(x, 0), int | float)), None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _after(body: bytes, receive: Receive) -> Receive:
    """Hand out the body that has been read, and then what comes after it."""
    told = False

    async def next_message() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message


async def _refuse(send: Send, status: int, why: str) -> None:
    body = json.dumps({"error": {"message": why}}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # what it still sends is not read
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def install() -> None:
    """Put a guard before whatever uvicorn serves in this process.

    The token is in the file that `TOKEN_FILE_VARIABLE` names.

    Raises:
        KeyError: the variable is not set.
        OSError: the file cannot be read.
        ValueError: there is no token in it.
    """
    import uvicorn

    token = Path(os.environ[TOKEN_FILE_VARIABLE]).read_text(encoding="ascii").strip()
    begin = uvicorn.Config.__init__

    @functools.wraps(begin)
    def guarded(self: uvicorn.Config, app: Any, *args: Any, **options: Any) -> None:
        if not callable(app):
            raise RuntimeError(f"{app!r} would be served by other processes, without a guard")
        server = sys.modules.get("sglang.srt.entrypoints.http_server")
        if server is not None:
            # It would ask itself over HTTP, without the token; `areal_real.serving.launch` asks.
            server._freeze_gc_after_server_warmup = lambda server_args: None  # type: ignore[attr-defined]
        begin(self, Guard(app, token), *args, **options)

    uvicorn.Config.__init__ = guarded  # type: ignore[method-assign]
