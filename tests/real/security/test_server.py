"""Every route of a real server: without the token, with wrong ones, with what is too much."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from areal_real.serving.guard import LARGEST_BODY_BYTES, ROUTES
from tests.house.repo import ROOT
from tests.real.security.attacks import Target, status_of

pytestmark = pytest.mark.slow

MIB = 2**20
UNPICKLES = {
    "/update_weights_from_tensor",
    "/load_lora_adapter_from_tensors",
    "/update_weights_from_ipc",
}
"""Routes of SGLang that take objects, and not only numbers, out of what they are sent."""


@pytest.fixture(scope="module")
def routes() -> list[tuple[str, str]]:
    """Every route that the installed SGLang has."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.real.security.routes"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    found = [(method, path) for method, path in json.loads(done.stdout.splitlines()[-1])]
    assert len(found) > 80
    assert {path for _, path in found} >= UNPICKLES
    assert {x for x in ROUTES if x[1] != "/metrics"} <= set(found), "a route has another name now"
    return found


def wrong_tokens(token: str) -> list[dict[str, str]]:
    return [
        {"Authorization": f"Bearer {token[:-1]}"},
        {"Authorization": f"Bearer {token}0"},
        {"Authorization": f"Bearer {'0' * len(token)}"},
        {"Authorization": f"Bearer  {token}"},
        {"Authorization": f"Basic {token}"},
        {"Authorization": token},
        {"Authorization": "Bearer"},
        {"Authorization": ""},
        {"Authorization": "Bearer \xe9\xff"},
        {"X-Authorization": f"Bearer {token}"},
        {"Cookie": f"token={token}"},
    ]


def test_no_route_answers_who_shows_no_token_or_a_wrong_one(
    target: Target, routes: list[tuple[str, str]]
) -> None:
    extra = [(method, "/generate") for method in ("GET", "HEAD", "OPTIONS", "DELETE", "TRACE")]
    extra += [("GET", "/nowhere"), ("GET", "//health"), ("GET", "/health/../generate")]
    for method, path in [*routes, *extra]:
        if method == "WS":
            continue
        for shown in ({}, {"Authorization": "Bearer " + "0" * len(target.token)}):
            status, answer = target.ask(method, path, b"{}", **shown)
            assert status == 401, (method, path, shown)
            assert target.token.encode() not in answer
    for shown in wrong_tokens(target.token):
        assert target.ask("GET", "/server_info", **shown)[0] == 401, shown
    twice = b"GET /server_info HTTP/1.1\r\nHost: x\r\n"
    twice += (
        b"Authorization: Bearer 0\r\n" + f"Authorization: Bearer {target.token}\r\n\r\n".encode()
    )
    assert status_of(target.raw(twice)) == 401
    assert target.ask("GET", f"/server_info?token={target.token}")[0] == 401
    target.generate()


def test_with_the_token_only_what_a_run_asks_for_is_there(
    target: Target, routes: list[tuple[str, str]]
) -> None:
    for method, path in routes:
        if method == "WS" or (method, path) in ROUTES:
            continue
        assert target.ask(method, path, b"{}", **target.shown)[0] == 404, (method, path)
    assert not {path for _, path in ROUTES} & UNPICKLES
    quiet = ("/pause_generation", "/begin_weight_update")  # are undone below
    last = ("/continue_generation", "/end_weight_update")
    others = {path for _, path in ROUTES} - {*quiet, *last, "/metrics"}
    for method, path in sorted(ROUTES, key=lambda x: (x[1] in others, x[1] in last)):
        if path == "/metrics":
            continue
        status, _ = target.ask(method, path, b"{}" if method == "POST" else None, **target.shown)
        assert status in (200, 400), (method, path, status)
    target.generate()


def test_web_sockets_are_closed_whoever_asks(target: Target, routes: list[tuple[str, str]]) -> None:
    """SGLang would accept one without its key."""
    paths = {path for method, path in routes if method == "WS"} | {"/generate"}
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": "x3JJHMbDL1EzLkh9GBhXDw==",
    }
    for path in paths:
        for shown in ({}, target.shown):
            status, _ = target.ask("GET", path, None, **upgrade, **shown)
            assert status in (401, 403, 404), (path, status)


def head(target: Target, *, size: int | None, shown: bool) -> bytes:
    """The head of a request to generate; without a size its body comes in chunks."""
    lines = ["POST /generate HTTP/1.1", "Host: x", "Content-Type: application/json"]
    lines.append("Transfer-Encoding: chunked" if size is None else f"Content-Length: {size}")
    if shown:
        lines.append(f"Authorization: Bearer {target.token}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunks(total: int) -> list[bytes]:
    return [f"{MIB:x}\r\n".encode() + b" " * MIB + b"\r\n"] * (total // MIB)


def test_a_strangers_body_is_not_waited_for(target: Target) -> None:
    assert status_of(target.raw(head(target, size=2**40, shown=False))) == 401
    assert status_of(target.raw(head(target, size=None, shown=False))) == 401


def test_a_body_that_is_too_large_is_refused_before_it_is_held(target: Target) -> None:
    before = target.resident_bytes()
    for size in (LARGEST_BODY_BYTES + 1, 2**40):  # by what it says of itself, without a byte of it
        assert status_of(target.raw(head(target, size=size, shown=True))) == 413
    for _ in range(3):
        told = target.raw(head(target, size=None, shown=True), *chunks(64 * MIB))
        # The answer may be lost where the connection was closed with bytes on their way.
        assert not told or status_of(told) == 413
        target.raw(head(target, size=64 * MIB, shown=False), *[b" " * MIB] * 64)
    assert target.resident_bytes() - before < 3 * LARGEST_BODY_BYTES
    target.generate()
    just = b'{"input_ids": [3], "sampling_params": {"max_new_tokens": 1}}'.ljust(LARGEST_BODY_BYTES)
    assert target.ask("POST", "/generate", just, **target.shown)[0] == 200


JUNK = {
    "nothing": b"",
    "half an object": b'{"input_ids": [1',
    "a list": b"[]",
    "null": b"null",
    "a number": b"1e400",
    "no UTF-8": b"\xff\xfe\x00",
    "bytes of a pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07builtins",
    "deep": b"[" * 200_000 + b"]" * 200_000,
    "deep in a field": b'{"input_ids": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
}
WRONG = {
    "text for ids": {"input_ids": "x"},
    "an object for ids": {"input_ids": {}},
    "no ids": {"input_ids": None},
    "an empty input": {"input_ids": []},
    "fractions": {"input_ids": [1.5]},
    "words": {"input_ids": ["a", 1]},
    "too long": {"input_ids": [3] * 100_000},
    "a number for parameters": {"input_ids": [3], "sampling_params": 3},
    "text for a count": {"input_ids": [3], "sampling_params": {"max_new_tokens": "many"}},
    "a negative count": {"input_ids": [3], "sampling_params": {"max_new_tokens": -1}},
    "no count": {"input_ids": [3], "sampling_params": {"max_new_tokens": None}},
    "a list for top_p": {"input_ids": [3], "sampling_params": {"top_p": [1]}},
    "text for stop tokens": {"input_ids": [3], "sampling_params": {"stop_token_ids": "x"}},
    "a temperature of text": {"input_ids": [3], "sampling_params": {"temperature": "hot"}},
    "an object for the name": {"input_ids": [3], "rid": {"a": 1}},
}


@pytest.mark.parametrize("name", [*JUNK, *WRONG])
def test_what_is_no_request_is_refused_and_the_server_goes_on(target: Target, name: str) -> None:
    body = JUNK[name] if name in JUNK else json.dumps(WRONG[name]).encode()
    status, _ = target.ask("POST", "/generate", body, **target.shown)
    assert 400 <= status < 500, status
    target.generate()


@pytest.mark.parametrize("path", sorted(path for method, path in ROUTES if method == "POST"))
def test_junk_on_every_route(target: Target, path: str) -> None:
    for name in ("half an object", "a list", "no UTF-8", "deep"):
        status, _ = target.ask("POST", path, JUNK[name], **target.shown)
        if path in ("/flush_cache", "/freeze_gc"):  # take no body, whatever it is
            assert status in (200, 400)
        else:
            assert 400 <= status < 500, (name, status)
    target.generate()


def test_what_is_no_http_is_refused(target: Target) -> None:
    for junk in (b"\x00" * 2**16, b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nA: " + b"b" * 2**20):
        answer = target.raw(junk)
        assert not answer or status_of(answer) == 400
    target.generate()


def test_the_token_is_nowhere_but_in_its_file(target: Target) -> None:
    """Also not in what the server says of itself to those who know it."""
    process = target.server
    assert target.token not in process.log.read_text(errors="replace")
    status, told = target.ask("GET", "/server_info", **target.shown)
    assert status == 200
    assert target.token.encode() not in told
    holders = [
        path
        for path in process.folder.rglob("*")
        if path.is_file() and target.token in path.read_text(errors="replace")
    ]
    assert [path.name for path in holders] == ["token"]
    assert holders[0].stat().st_mode & 0o777 == 0o600
    assert process.folder.stat().st_mode & 0o777 == 0o700
    for path in process.folder.rglob("*"):  # SGLang's own sockets, over which it sends pickles
        assert path.is_relative_to(process.folder)
