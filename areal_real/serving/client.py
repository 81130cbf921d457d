"""One SGLang server over HTTP: asynchronous, and without importing SGLang.

A connection serves one request: SGLang may close idle ones while we are busy, and a request sent
into a closing connection could not be told from one that was begun.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import aiohttp

from areal_real.errors import BackendError
from areal_real.serving.errors import RequestRefused, ServerGone
from areal_real.serving.options import Sampling
from areal_real.serving.segment import Progress, Segment

CONNECT_TIMEOUT_S = 20.0
"""To get a connection; the kernel accepts it even where the server is busy."""

BACK_OFF_S = (0.1, 0.4, 1.6)
"""Waits before a request that may be repeated is sent again."""

LARGEST_ANSWER_BYTES = 64 * 2**20
"""Of a server. A token with its log-prob takes some 50 bytes: these are a million tokens."""

LARGEST_REFUSAL_BYTES = 2**16
"""So much of an error is read."""

_PIECE_BYTES = 2**16

PauseMode = Literal["in_place", "retract"]


class ServerClient:
    """Speaks to one server.

    Args:
        url: where it answers.
        api_token: it asks for, if it does.
        request_timeout_s: of requests other than generation, and between two pieces of a stream.
        stream_interval_tokens: over 0: get tokens as they come, so many at a time.
    """

    def __init__(
        self,
        url: str,
        *,
        api_token: str | None = None,
        request_timeout_s: float = 300.0,
        stream_interval_tokens: int = 0,
    ) -> None:
        self.url = url
        self._timeout_s = request_timeout_s
        self._interval = stream_interval_tokens
        headers = {} if api_token is None else {"Authorization": f"Bearer {api_token}"}
        self._http = aiohttp.ClientSession(
            url,
            headers=headers,
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            auto_decompress=False,  # SGLang does not compress; what is small stays small
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give up connections; may be called again."""
        await self._http.close()

    # ---- generation ----------------------------------------------------------------------------

    async def generate(
        self,
        input_ids: Sequence[int],
        max_new_tokens: int,
        sampling: Sampling,
        *,
        rid: str,
        cache_key: str = "",
        progress: Progress | None = None,
    ) -> Segment:
        """Generate after `input_ids`.

        Args:
            input_ids: prompt, and what has been answered so far.
            max_new_tokens: at most.
            sampling: how tokens are drawn.
            rid: names the request. SGLang's scheduler aborts every request whose name *begins*
                with the one asked for: no name may be the beginning of another.
            cache_key: only requests of one key share KV caches of prefixes.
            progress: filled as tokens come in; also readable if this fails or is cancelled.

        Raises:
            RequestRefused: the server will not, as for an input that is too long.
            ServerGone: no answer, or one that broke off; holds what had been streamed.
            BackendError: the answer is no answer to this, or too large.
        """
        progress = Progress() if progress is None else progress
        parameters = sampling.parameters(max_new_tokens)
        if self._interval:
            parameters["stream_interval"] = self._interval
        body: dict[str, Any] = {
            "rid": rid,
            "input_ids": list(input_ids),
            "sampling_params": parameters,
            "return_logprob": True,
            "stream": self._interval > 0,
        }
        if cache_key:
            body["extra_key"] = cache_key
        # Between two pieces of a stream: a reply that got lost on its way would never be missed.
        silence_s = self._timeout_s if self._interval else None
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S, sock_read=silence_s)
        try:
            async with self._http.post(
                "/generate", json=body, timeout=timeout, allow_redirects=False
            ) as response:
                await _refused("generate", response)
                if self._interval:
                    async for answer in _events(response):
                        _take(progress, answer, max_new_tokens)
                else:
                    _take(progress, _object(await _whole(response)), max_new_tokens)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ServerGone(
                f"generate: {self.url}: {_told(error)}",
                progress.partial() if self._interval else None,
            ) from error
        if progress.finish is None:  # the stream was closed in good order, but too early
            raise ServerGone(f"generate: {self.url}: the answer broke off", progress.partial())
        return progress.complete()

    async def abort(self, rid: str) -> None:
        """Let a request end with what it has. Of an unknown one the server takes no notice."""
        await self._post("abort_request", {"rid": rid})

    async def abort_all(self) -> None:
        """Let all requests end with what they have."""
        await self._post("abort_request", {"abort_all": True})

    # ---- state ---------------------------------------------------------------------------------

    async def health(self, *, timeout_s: float | None = None) -> None:
        """Whether the HTTP process answers."""
        await self._request("GET", "health", timeout_s=timeout_s, repeat=False)

    async def probe(self, *, timeout_s: float | None = None) -> Mapping[str, Any]:
        """Whether the scheduler answers too, busy or paused; returns the server's description."""
        return _object(await self._request("GET", "server_info", timeout_s=timeout_s, repeat=False))

    async def weight_version(self) -> int:
        """The weights it serves."""
        info = _object(await self._request("GET", "model_info"))
        return int(info["weight_version"])

    async def pause(self, mode: PauseMode) -> None:
        """Hold all requests, with their KV caches (``in_place``) or without (``retract``)."""
        await self._post("pause_generation", {"mode": mode})

    async def resume(self) -> None:
        """Go on after a pause."""
        await self._post("continue_generation", {})

    async def flush_cache(self, *, wait_s: float = 20.0) -> None:
        """Drop all cached prefixes, waiting until nothing runs.

        Raises:
            RequestRefused: something still runs.
        """
        await self._post(f"flush_cache?timeout={wait_s:g}", {})

    async def freeze(self) -> None:
        """Let its garbage collectors pass over what has been made by now, which stays."""
        await self._post("freeze_gc", {})

    # ---- weights -------------------------------------------------------------------------------

    async def update_from_disk(self, folder: Path, version: int) -> None:
        """Load weights from a folder of safetensors.

        Unless paused, the server waits with it until nothing runs. Cached prefixes stay: the
        server would die of a flush while anything runs, so use `flush_cache`, or a new cache key.

        Raises:
            RequestRefused: it cannot load them, and has the old ones.
        """
        body = {
            "model_path": str(folder),
            "weight_version": str(version),
            "flush_cache": False,
        }
        await self._post("update_weights_from_disk", body)

    async def join_group(
        self, *, address: str, port: int, world_size: int, group: str, backend: str
    ) -> None:
        """Let the server's processes join a process group, as ranks from 1 on."""
        body = {
            "master_address": address,
            "master_port": port,
            "rank_offset": 1,
            "world_size": world_size,
            "group_name": group,
            "backend": backend,
        }
        await self._post("init_weights_update_group", body, repeat=False)

    async def leave_group(self, group: str) -> None:
        """Let the server leave a process group."""
        await self._post("destroy_weights_update_group", {"group_name": group}, repeat=False)

    async def begin_update(self) -> None:
        """Before `receive`."""
        await self._post("begin_weight_update", {}, repeat=False)

    async def receive(
        self,
        names: Sequence[str],
        dtypes: Sequence[str],
        shapes: Sequence[Sequence[int]],
        *,
        group: str,
        version: int,
    ) -> None:
        """Let the server take part in a broadcast from rank 0: of these tensors' bytes, in order.

        For a moment it needs memory for them twice, beside its own weights.
        """
        body = {
            "names": list(names),
            "dtypes": list(dtypes),
            "shapes": [list(shape) for shape in shapes],
            "group_name": group,
            "weight_version": str(version),
            "flush_cache": False,
            "load_format": "flattened_bucket",
        }
        await self._post("update_weights_from_distributed", body, repeat=False)

    async def end_update(self) -> None:
        """After the last `receive`."""
        await self._post("end_weight_update", {}, repeat=False)

    # ---- requests ------------------------------------------------------------------------------

    async def _post(self, path: str, body: Mapping[str, Any], *, repeat: bool = True) -> bytes:
        return await self._request("POST", path, body, repeat=repeat)

    async def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        repeat: bool = True,
    ) -> bytes:
        """Ask, again if the connection fails and doing it twice is the same as once."""
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        back_off_s = BACK_OFF_S if repeat else ()
        for wait_s in (*back_off_s, None):
            try:
                async with (
                    asyncio.timeout(limit_s),
                    self._http.request(
                        method, f"/{path}", json=body, allow_redirects=False
                    ) as response,
                ):
                    await _refused(path, response)
                    return await _whole(response)
            except TimeoutError as error:
                raise ServerGone(f"{path}: {self.url}: no answer in {limit_s:g} s") from error
            except (aiohttp.ClientError, OSError) as error:
                if wait_s is None:
                    raise ServerGone(f"{path}: {self.url}: {_told(error)}") from error
                await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")


async def _whole(response: aiohttp.ClientResponse, most: int = LARGEST_ANSWER_BYTES) -> bytes:
    """The body.

    Raises:
        BackendError: it is larger than anything a server has to say.
    """
    body = bytearray()
    async for piece in response.content.iter_chunked(_PIECE_BYTES):
        body += piece
        if len(body) > most:
            raise BackendError(f"the server sent more than {most} bytes")
    return bytes(body)


async def _refused(what: str, response: aiohttp.ClientResponse) -> None:
    """Raise what the server said, if it is no success. No server of ours sends us elsewhere."""
    if response.status >= 300:
        try:
            said = await _whole(response, LARGEST_REFUSAL_BYTES)
        except BackendError as error:
            said = str(error).encode()
        text = said.decode(errors="replace").strip()
        try:
            answer = json.loads(text)
            text = str(answer.get("message") or answer["error"]["message"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            text = text[:500]
        raise RequestRefused(what, response.status, text)


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of a stream of server-sent events, up to its ``[DONE]``.

    Raises:
        BackendError: one is none, or larger than a whole answer may be.
    """
    rest = bytearray()
    async for piece in response.content.iter_chunked(_PIECE_BYTES):
        *lines, tail = piece.split(b"\n")
        for line in lines:
            whole = bytes(rest + line)
            rest.clear()
            if whole.startswith(b"data:"):
                data = whole[len(b"data:") :].strip()
                if data == b"[DONE]":
                    return
                yield _object(data)
        rest += tail
        if len(rest) > LARGEST_ANSWER_BYTES:
            raise BackendError(f"the server sent a line of over {LARGEST_ANSWER_BYTES} bytes")


def _object(data: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        BackendError: it is none.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BackendError(f"the server sent {data[:100]!r}") from error
    if not isinstance(found, dict):
        raise BackendError(f"the server sent {data[:100]!r}, which is no object")
    return found


def _take(progress: Progress, answer: dict[str, Any], most: int) -> None:
    """Add what came.

    Raises:
        RequestRefused: it is an error.
        BackendError: it is no answer, or more than was asked for.
    """
    try:
        if "error" in answer:
            error = answer["error"]
            raise RequestRefused("generate", error["code"], error["message"])
        progress.add(answer)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BackendError(f"the server's answer was not understood: {error!r}") from error
    if len(progress) > most:
        raise BackendError(f"the server sent {len(progress)} tokens where {most} were asked for")


def _told(error: BaseException) -> str:
    return str(error) or type(error).__name__
