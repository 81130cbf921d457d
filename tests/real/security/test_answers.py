"""A server that is broken or malicious: what it sends is bounded, and never taken for an answer."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest

from areal_real.errors import BackendError
from areal_real.serving import client as client_module
from areal_real.serving.client import ServerClient
from areal_real.serving.errors import RequestRefused
from areal_real.serving.options import Sampling
from areal_real.serving.segment import Segment
from tests.real.serving.test_faulty_answers import Reply, answering, faulty, streaming

MOST = 2**16


@pytest.fixture(autouse=True)
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same code, with less to send."""
    assert client_module.LARGEST_ANSWER_BYTES == 64 * 2**20
    monkeypatch.setattr(client_module, "LARGEST_ANSWER_BYTES", MOST)
    monkeypatch.setattr(client_module._whole, "__defaults__", (MOST,))


async def ask(client: ServerClient) -> Segment:
    return await client.generate([1, 2], 3, Sampling(), rid="x")


def endless(start: bytes, piece: bytes) -> Reply:
    """As much as the client takes; notes that it was stopped."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + start)
        sent = 0
        try:
            while sent < 2**30:
                writer.write(piece)
                await writer.drain()
                sent += len(piece)
        except ConnectionError:
            pass
        assert sent < 2**28, "nobody stopped it"

    return reply


@pytest.mark.parametrize("interval", [0, 4])
@pytest.mark.parametrize("piece", [b" " * 2**20, b"x" * 100, b"data: {" + b"9" * 2**20])
def test_an_endless_answer(interval: int, piece: bytes) -> None:
    async def work() -> None:
        start = b"data: " if interval else b""
        async with faulty(endless(start, piece), stream_interval_tokens=interval) as client:
            with pytest.raises(BackendError, match="the server sent"):
                await ask(client)

    asyncio.run(work())


def test_an_endless_answer_to_a_command_and_an_endless_refusal() -> None:
    async def refusal(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 X\r\nConnection: close\r\n\r\n")
        try:
            for _ in range(2**10):
                writer.write(b"y" * 2**20)
                await writer.drain()
        except ConnectionError:
            return
        raise AssertionError("nobody stopped it")

    async def work() -> None:
        async with faulty(endless(b"", b" " * 2**20)) as client:
            with pytest.raises(BackendError, match="the server sent more than"):
                await client.probe()
        async with faulty(refusal) as client:
            with pytest.raises(RequestRefused, match="sent more than") as told:
                await client.probe()
        assert len(str(told.value)) < 600

    asyncio.run(work())


META = {"weight_version": "3", "finish_reason": {"type": "length"}}


def answer(ids: list[Any], **meta: Any) -> dict[str, Any]:
    told = {
        "output_token_logprobs": [[-0.5, token, None] for token in ids],
        "weight_versions": [{"version": "3", "start": 0, "end": len(ids)}],
        **META,
        **meta,
    }
    return {"output_ids": ids, "meta_info": told}


BAD: dict[str, Any] = {
    "null": None,
    "a list": [],
    "a number": 3,
    "an empty object": {},
    "an error of no form": {"error": 3},
    "no meta": {"output_ids": [1]},
    "meta of text": {"output_ids": [1], "meta_info": "x"},
    "ids of text": answer(["4"]),
    "ids of truth": answer([True]),
    "log-probs of text": answer([4], output_token_logprobs=[["-1", 4, None]]),
    "log-probs of two": answer([4], output_token_logprobs=[[-1, 4]]),
    "log-probs of null": answer([4], output_token_logprobs=[[None, 4, None]]),
    "spans without end": answer([4], weight_versions=[{"version": "3", "start": 0, "end": 10**12}]),
    "spans of text": answer([4], weight_versions="x"),
    "a version of a million digits": answer([4], weight_version="9" * 10_000),
    "a version that is a list": answer([4], weight_version=[]),
    "a reason of text": answer([4], finish_reason="stop"),
    "more than was asked for": answer([4, 5, 6, 7]),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("interval", [0, 4])
def test_what_is_no_answer(name: str, interval: int) -> None:
    async def work() -> None:
        reply = (
            streaming(BAD[name], "[DONE]", whole=True)
            if interval
            else answering(200, json.dumps(BAD[name]).encode())
        )
        async with faulty(reply, stream_interval_tokens=interval) as client:
            with pytest.raises(BackendError):
                await ask(client)

    asyncio.run(work())


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b"[" * 50_000, b"1" * 5000, gzip.compress(b"{}")],
    ids=["nothing", "half", "no UTF-8", "deep", "a long number", "compressed"],
)
def test_what_is_no_json(body: bytes) -> None:
    async def work() -> None:
        async with faulty(answering(200, body), answering(200, body)) as client:
            with pytest.raises(BackendError):
                await client.probe()
            with pytest.raises(BackendError):
                await ask(client)

    asyncio.run(work())


def test_nobody_is_followed_elsewhere() -> None:
    """The token would go along."""
    asked: list[str] = []

    async def trap(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append("trap")
        writer.close()

    async def work() -> None:
        async with await asyncio.start_server(trap, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]

            async def elsewhere(writer: asyncio.StreamWriter) -> None:
                where = f"http://127.0.0.1:{port}/"
                writer.write(f"HTTP/1.1 307 X\r\nLocation: {where}\r\n".encode())
                writer.write(b"Content-Length: 0\r\n\r\n")
                await writer.drain()

            async with faulty(elsewhere, elsewhere, api_token="secret") as client:
                with pytest.raises(RequestRefused, match="307"):
                    await client.pause("in_place")
                with pytest.raises(RequestRefused, match="307"):
                    await ask(client)
        assert not asked

    asyncio.run(work())
