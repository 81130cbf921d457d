"""The guard by itself: it is there, or there is no server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from areal_real.placement.roles import Contact
from areal_real.serving import guard
from areal_real.serving.command import environment as server_environment
from areal_real.serving.guard import TOKEN_FILE_VARIABLE, Guard
from areal_real.serving.options import ServerOptions
from areal_real.training.launch import environment
from areal_real.training.settings import TrainerSettings
from tests.real.training import small

INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")

TRY = """
import runpy, sys
runpy.run_path(sys.argv[1])["install"]()
import uvicorn
async def app(scope, receive, send): pass
print(type(uvicorn.Config(app, port=1, loop="asyncio").app).__name__)
uvicorn.Config("module:app", port=1)
"""


def installed(**variables: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("uvicorn")
    return subprocess.run(
        [sys.executable, "-c", TRY, str(guard.__file__)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_whatever_uvicorn_serves_is_guarded(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    done = installed(**{TOKEN_FILE_VARIABLE: str(tmp_path / "token")})
    assert done.stdout == "Guard\n"
    assert "would be served by other processes, without a guard" in done.stderr
    assert "secret" not in done.stdout + done.stderr


def test_without_a_token_there_is_no_server(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for variables, told in (
        ({}, TOKEN_FILE_VARIABLE),
        ({TOKEN_FILE_VARIABLE: str(tmp_path / "none")}, "No such file"),
        ({TOKEN_FILE_VARIABLE: str(tmp_path / "empty")}, "needs a token"),
    ):
        done = installed(**variables)
        assert done.returncode
        assert "Guard" not in done.stdout
        assert told in done.stderr


def test_loopback_is_meant_whatever_the_cluster_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gloo and NCCL listen on the interface that a variable names."""
    for name in INTERFACES:
        monkeypatch.setenv(name, "eth7")
    for device in ("cpu", "cuda"):
        told = server_environment(ServerOptions(device=device), tmp_path)
        assert [told[name] for name in INTERFACES] == ["lo", "lo"]
    settings = TrainerSettings(**small.ONE_STEP)
    contact = Contact(host="127.0.0.1", port=1, token="secret")
    for listen, interface in (("127.0.0.1", "lo"), ("10.11.12.13", "eth7")):
        told = environment(
            settings, contact, rank=1, local_rank=1, store=(listen, 1), listen=listen, gpus=None
        )
        assert [told[name] for name in INTERFACES] == [interface] * 2
        assert "secret" not in "".join(told.values()), "only rank 0 is told"


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is shown: also what is longer or shorter goes through `compare_digest`."""
    compared: list[tuple[bytes, bytes]] = []
    original = guard.hmac.compare_digest

    def noted(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return original(a, b)

    monkeypatch.setattr(guard.hmac, "compare_digest", noted)

    async def app(scope: object, receive: object, send: object) -> None:
        raise AssertionError

    shown = [b"", b"Bearer secre", b"Bearer secret", b"Bearer secret0"]
    known = [
        Guard(app, "secret")._knows({"headers": [(b"authorization", value)]}) for value in shown
    ]
    assert known == [False, False, True, False]
    assert [a for a, _ in compared] == shown
