"""The sender's side of a broadcast, against a receiver that says when it takes what."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from areal_real.serving.broadcast import Broadcaster


def test_the_next_bucket_is_prepared_while_one_is_broadcast_and_no_more() -> None:
    told = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("overlap.py"))],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )
    assert told.stdout == "all received\n", told.stderr


def test_the_listening_socket_is_closed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the store. Closed again, its number could be that of a file of another thread."""
    made: list[socket.socket] = []
    create = socket.create_server

    def noted(address: tuple[str, int], **options: int) -> socket.socket:
        made.append(create(address, **options))
        return made[-1]

    monkeypatch.setattr(socket, "create_server", noted)
    broadcaster = Broadcaster("group", 2)
    with socket.create_connection(("127.0.0.1", broadcaster.port)):
        pass
    assert [one.fileno() for one in made] == [-1]
