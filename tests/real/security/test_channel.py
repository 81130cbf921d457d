"""The channel between a run and its trainer, and what else a trainer listens on, under attack."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from areal_real.errors import TrainerLost
from areal_real.placement.local import start_ranks
from areal_real.placement.roles import Contact, Ending, RankProcesses
from areal_real.training import control
from areal_real.training import world as world_module
from areal_real.training.settings import TrainerSettings
from areal_real.training.world import TrainerWorld
from tests.real.training import small
from tests.real.training.worlds import TWO_SETTINGS

CLOSED_S = 30.0
SILENCE_S = 1.0
RIGHT = "right-" + "0" * 58


def first_lines(token: str) -> dict[str, bytes]:
    """What a stranger may send first."""

    def line(value: object) -> bytes:
        return json.dumps(value).encode() + b"\n"

    return {
        "no token": line({}),
        "a command": line({"id": 1, "command": "stop"}),
        "a wrong token": line({"token": "0" * len(token)}),
        "nearly the token": line({"token": token[:-1]}),
        "the token and more": line({"token": token + "0"}),
        "a token of another kind": line({"token": [token]}),
        "the token by itself": line(token),
        "a list": line([token]),
        "not JSON": b"\x80\x04\x95\n",
        "not UTF-8": b'{"token": "\xff\xfe"}\n',
        "deep": b"[" * 60_000 + b"\n",
        "a number of many digits": b"1" * 50_000 + b"\n",
        "a surrogate": b'{"token": "\\ud800"}\n',
        "an endless line": b"x" * 2**22,
        "an endless line with the token": b'{"token": "'
        + token.encode()
        + b'", "x": "'
        + b"x" * 2**22,
        "binary": bytes(range(256)) * 1000,
    }


async def refused(contact: Contact, first: bytes) -> bool:
    """Whether the other end closes without a word."""
    reader, writer = await asyncio.open_connection(contact.host, contact.port)
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(first)
            await writer.drain()
        async with asyncio.timeout(CLOSED_S):
            try:
                return await reader.read() == b""
            except ConnectionError:
                return True
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


class Pretender:
    """In the place of a trainer's processes: only it has the token to misbehave with."""

    clock_ahead_ns = 0

    def __init__(self, behave: Callable[[Contact], Awaitable[None]], contact: Contact) -> None:
        self.task = asyncio.ensure_future(behave(contact))
        self._ended = asyncio.Event()

    async def one_ended(self) -> Ending:
        await self._ended.wait()
        return Ending(rank=0, how="was ended", log=Path("/nowhere"))

    async def all_ended(self) -> None:
        await self._ended.wait()

    async def kill(self) -> None:
        self._ended.set()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def lost_with(tmp_path: Path, behave: Callable[[Contact], Awaitable[None]]) -> str:
    """Start a trainer that behaves so; why the run gives it up."""

    async def work() -> str:
        async def start(_: TrainerSettings, contact: Contact, log: Path) -> RankProcesses:
            return Pretender(behave, contact)

        settings = TrainerSettings(**{**small.ONE_STEP, "start_timeout_s": CLOSED_S})
        world = TrainerWorld(
            settings,
            log=tmp_path / "log",
            on_span=lambda *_: None,
            start=start,
            token=RIGHT,
        )
        try:
            with pytest.raises(TrainerLost) as lost:
                await world.start(tmp_path)
        finally:
            await world.stop()
        return str(lost.value)

    return asyncio.run(work())


@contextlib.asynccontextmanager
async def entered(contact: Contact) -> AsyncIterator[asyncio.StreamWriter]:
    _, writer = await asyncio.open_connection(contact.host, contact.port)
    try:
        writer.write(json.dumps({"token": contact.token}).encode() + b"\n")
        yield writer
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "junk",
    [
        b"\x80\x04\x95\n",
        b"[]\n",
        b"{}\n",
        b'{"id": []}\n',
        b'{"id": 1}\n',
        b'{"span": 3}\n',
        b"[" * 60_000 + b"\n",
    ],
)
def test_who_has_the_token_and_then_sends_junk_is_given_up(tmp_path: Path, junk: bytes) -> None:
    async def behave(contact: Contact) -> None:
        async with entered(contact) as writer:
            writer.write(junk)
            await writer.drain()
            await asyncio.sleep(CLOSED_S)

    assert "message was not understood" in lost_with(tmp_path, behave)


def test_an_answer_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "LONGEST_LINE_BYTES", 2**20)
    sent = 0

    async def behave(contact: Contact) -> None:
        nonlocal sent
        async with entered(contact) as writer:
            with contextlib.suppress(ConnectionError):
                while sent < 2**28:
                    writer.write(b"x" * 2**16)
                    await writer.drain()
                    sent += 2**16

    assert "a line of more than 1048576 bytes" in lost_with(tmp_path, behave)
    assert 2**20 < sent < 2**26


def test_tokens_are_compared_in_constant_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every token that is shown goes through `hmac.compare_digest`, whatever its length."""
    compared: list[bytes] = []
    original = hmac.compare_digest

    def noted(a: bytes, b: bytes) -> bool:
        compared.append(a)
        assert b == RIGHT.encode()
        return original(a, b)

    monkeypatch.setattr(world_module.hmac, "compare_digest", noted)

    async def behave(contact: Contact) -> None:
        for token in ("", "r", RIGHT[:-1], RIGHT + "0"):
            assert await refused(contact, json.dumps({"token": token}).encode() + b"\n")
        async with entered(contact) as writer:
            writer.write(b"junk\n")
            await asyncio.sleep(CLOSED_S)

    assert "message was not understood" in lost_with(tmp_path, behave)
    assert compared == [x.encode() for x in ("", "r", RIGHT[:-1], RIGHT + "0", RIGHT)]


@pytest.mark.slow
def test_strangers_at_a_real_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it connects, while it starts, and on whatever its processes listen on."""
    monkeypatch.setattr(world_module, "TOKEN_TIMEOUT_S", SILENCE_S)
    late: list[asyncio.Task[bool]] = []

    async def work() -> None:
        world = TrainerWorld(TWO_SETTINGS, log=tmp_path / "log", token=RIGHT)

        async def start(settings: TrainerSettings, contact: Contact, log: Path) -> RankProcesses:
            attacks = first_lines(contact.token)
            held = [await refused(contact, first) for first in attacks.values()]
            assert dict.fromkeys(attacks, True) == dict(zip(attacks, held, strict=True))
            assert await refused(contact, b""), "silence"

            async def second() -> bool:
                """With the right token, once rank 0 is in and works on the first command."""
                while not world._connected.done():
                    await asyncio.sleep(0.01)
                shown = json.dumps({"token": contact.token}).encode() + b"\n"
                return await refused(contact, shown)

            late.append(asyncio.create_task(second()))
            return await start_ranks(settings, contact, log)

        world._start_ranks = start
        await world.start(small.write_config(tmp_path / "model"))
        try:
            assert await late[0], "the trainer's place is taken"
            batch = tmp_path / "batch.safetensors"
            small.batch().save(batch)
            await world.train(1, batch)
            places = [
                (connection.laddr.ip, connection.laddr.port)
                for pid in world.pids
                for connection in psutil.Process(pid).net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            ]
            assert places, "nothing to attack"
            assert {ip for ip, _ in places} == {"127.0.0.1"}
            for number, place in enumerate(places):
                contact = Contact(host=place[0], port=place[1], token="")
                for junk in (b"", b"GET / HTTP/1.0\r\n\r\n", bytes(range(256)) * 64):
                    _, writer = await asyncio.open_connection(contact.host, contact.port)
                    writer.write(junk)
                    with contextlib.suppress(ConnectionError):
                        await writer.drain()
                        writer.close()
                        await writer.wait_closed()
                await world.train(2 + number, batch)
        finally:
            await world.stop()
        assert RIGHT not in (tmp_path / "log").read_text()

    asyncio.run(work())
