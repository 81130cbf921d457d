"""Faults that the real server cannot be asked for: a small server that answers as told."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from areal_real.errors import BackendError
from areal_real.serving import client as client_module
from areal_real.serving.client import ServerClient
from areal_real.serving.errors import RequestRefused, ServerGone
from areal_real.serving.options import Sampling
from areal_real.serving.segment import Progress, Segment

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def faulty(*replies: Reply, **options: Any):
    """A client of a server that gives these replies, one to each connection, in order."""
    waiting = list(replies)
    serving: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b"content-length:" in head:
            await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
        await waiting.pop(0)(writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, ServerClient(f"http://127.0.0.1:{port}", **options) as client:
        yield client
        await asyncio.gather(*serving)
    assert not waiting


def answering(status: int, body: bytes, kind: str = "application/json") -> Reply:
    async def reply(writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    return reply


def streaming(*events: dict[str, Any] | str, whole: bool) -> Reply:
    """Events in chunks cut at odd places; `whole`: the stream is closed in good order."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        told = [x if isinstance(x, str) else json.dumps(x) for x in events]
        data = "".join(f"data: {x}\n\n" for x in told).encode()
        for at in range(0, len(data), 7):
            piece = data[at : at + 7]
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        if whole:
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    return reply


async def silence(writer: asyncio.StreamWriter) -> None:
    """Close without a word."""


async def never(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.3)


def some(ids: list[int], version: str = "3", finish: str | None = None, **meta: Any) -> Any:
    told = {
        "weight_version": version,
        "cached_tokens": 2,
        "finish_reason": finish and {"type": finish},
        "output_token_logprobs": [[-0.5, token, None] for token in ids],
        **meta,
    }
    return {"output_ids": ids, "meta_info": told}


def spans(*told: tuple[str, int, int]) -> list[dict[str, Any]]:
    return [{"version": v, "start": a, "end": b} for v, a, b in told]


async def ask(client: ServerClient) -> Segment:
    return await client.generate([1], 5, Sampling(), rid="r.")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "BACK_OFF_S", (0.0, 0.0, 0.0))


def test_a_stream_that_breaks_off_keeps_what_came() -> None:
    async def work() -> None:
        for whole, last in ((False, []), (True, []), (True, ["[DONE]"])):
            reply = streaming(some([4]), some([5, 6]), *last, whole=whole)
            async with faulty(reply, stream_interval_tokens=2) as client:
                with pytest.raises(ServerGone) as gone:
                    await ask(client)
            partial = gone.value.partial
            assert partial is not None
            assert (partial.ids, partial.finish) == ((4, 5, 6), "abort")
            assert partial.versions.tolist() == [3, 3, 3]
            assert partial.logprobs.tolist() == [-0.5] * 3

    asyncio.run(work())


def test_a_whole_stream() -> None:
    async def work() -> None:
        last = some([6], "4", "stop", weight_versions=spans(("3", 0, 1), ("4", 1, 3)))
        reply = streaming(some([4]), some([5]), last, "[DONE]", whole=True)
        async with faulty(reply, stream_interval_tokens=1) as client:
            segment = await ask(client)
        assert (segment.ids, segment.finish, segment.cached_tokens) == ((4, 5, 6), "stop", 2)
        assert segment.spans == [(3, 0, 1), (4, 1, 3)]

    asyncio.run(work())


def test_an_error_within_a_stream() -> None:
    async def work() -> None:
        error = {"error": {"message": "too long", "code": 400}}
        async with faulty(streaming(error, whole=True), stream_interval_tokens=1) as client:
            with pytest.raises(RequestRefused, match="too long"):
                await ask(client)

    asyncio.run(work())


@pytest.mark.parametrize("interval", [0, 1])
def test_a_dropped_generation_is_not_repeated(interval: int) -> None:
    async def work() -> None:
        async with faulty(silence, stream_interval_tokens=interval) as client:
            with pytest.raises(ServerGone) as gone:
                await ask(client)
        assert (gone.value.partial is None) == (interval == 0)

    asyncio.run(work())


def test_what_may_be_repeated_is_repeated() -> None:
    async def work() -> None:
        good = answering(200, b"{}")
        async with faulty(silence, silence, good) as client:
            await client.abort("r.")
        async with faulty(silence, silence, silence, silence) as client:
            with pytest.raises(ServerGone, match="abort_request"):
                await client.abort("r.")
        async with faulty(silence) as client:  # taking part in a broadcast twice is not the same
            with pytest.raises(ServerGone):
                await client.receive(["a"], ["float32"], [[1]], group="g", version=1)

    asyncio.run(work())


def test_silence_has_a_limit() -> None:
    async def work() -> None:
        async with faulty(never, request_timeout_s=0.05) as client:
            with pytest.raises(ServerGone, match=r"no answer in 0\.05 s"):
                await client.pause("in_place")

    asyncio.run(work())


def test_a_stream_that_falls_silent_keeps_what_came() -> None:
    async def hanging(writer: asyncio.StreamWriter) -> None:
        await streaming(some([4]), whole=False)(writer)
        await never(writer)

    async def work() -> None:
        async with faulty(hanging, stream_interval_tokens=1, request_timeout_s=0.1) as client:
            with pytest.raises(ServerGone) as gone:
                await ask(client)
        assert gone.value.partial is not None
        assert gone.value.partial.ids == (4,)

    asyncio.run(work())


def test_events_that_come_twice_count_once() -> None:
    async def work() -> None:
        first, second = some([4], completion_tokens=1), some([5], completion_tokens=2)
        told = spans(("3", 0, 3))
        last = some([6], "3", "stop", weight_versions=told, completion_tokens=3)
        events = [first, first, second, second, last, last]
        async with faulty(
            streaming(*events, "[DONE]", whole=True), stream_interval_tokens=1
        ) as client:
            assert (await ask(client)).ids == (4, 5, 6)

    asyncio.run(work())


def test_an_event_that_is_missing_is_missed() -> None:
    async def work() -> None:
        events = some([4], completion_tokens=1), some([6], completion_tokens=3)
        async with faulty(streaming(*events, whole=True), stream_interval_tokens=1) as client:
            with pytest.raises(BackendError, match="3 by the server's count"):
                await ask(client)

    asyncio.run(work())


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"message": "busy"}', "busy"),
        (b'{"error": {"message": "busy"}}', "busy"),
        (b'{"success": false}', "success"),
        (b"[1]", r"\[1\]"),
        (b"plain words", "plain words"),
    ],
)
def test_refusals_tell_what_the_server_said(body: bytes, text: str) -> None:
    async def work() -> None:
        async with faulty(answering(400, body)) as client:
            with pytest.raises(RequestRefused, match=text) as refused:
                await client.flush_cache()
        assert refused.value.status == 400

    asyncio.run(work())


@pytest.mark.parametrize(
    "answer",
    [
        some([4, 5], "3", "stop", weight_versions=spans(("3", 0, 1))),
        some([4, 5], "3", "stop", weight_versions=spans(("3", 1, 2))),
        some([4, 5], "3", "stop", weight_versions=spans(("3", 0, 1), ("4", 0, 2))),
        some([4], "new", "stop", weight_versions=spans(("new", 0, 1))),
        some([4], "3", "melted", weight_versions=spans(("3", 0, 1))),
        some([4], "3", "stop", output_token_logprobs=[[-0.5, 9, None]]),
        some([4], "3", "stop", output_token_logprobs=[]),
        some([4], "3"),
    ],
)
def test_an_answer_that_contradicts_itself(answer: Any) -> None:
    async def work() -> None:
        async with faulty(answering(200, json.dumps(answer).encode())) as client:
            with pytest.raises(BackendError):
                await ask(client)

    asyncio.run(work())


def test_tokens_without_spans_have_the_older_version() -> None:
    """Between two answers around an update it is not known where it was."""
    counts: list[int] = []
    progress = Progress(counts.append)
    for answer in (some([1, 2]), some([3, 4], "4"), some([5], "4"), some([])):
        progress.add(answer)
    partial = progress.partial()
    assert partial.versions.tolist() == [3, 3, 3, 3, 4]
    assert partial.spans == [(3, 0, 4), (4, 4, 5)]
    assert counts == [2, 2, 1]
    with pytest.raises(BackendError, match="finish reason"):
        progress.complete()
