"""``areal-sim ui``: what it refuses."""

from __future__ import annotations

import socket

import pytest

from areal_sim.commands import ui
from areal_sim.ui import access
from tests.sim.cli_cases import say


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def served(host: str, port: int) -> None:
        raise AssertionError(f"served on {host} {port}")

    monkeypatch.setattr(ui, "_serve", served)
    monkeypatch.delenv(access.TOKEN_VARIABLE, raising=False)


def test_without_streamlit_it_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ui, "find_spec", lambda name: None)
    said = say(capsys, "ui", "--no-browser")
    assert said.code == 2
    assert said.err == ("areal-sim: streamlit is not installed: pip install 'areal-lab[ui]'\n")


def test_a_port_that_is_taken_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = say(capsys, "ui", "--no-browser", "--port", port)
    assert said.code == 2
    assert said.err == (f"areal-sim: --host 127.0.0.1 --port {port}: Address already in use\n")


@pytest.mark.parametrize("port", [-1, 0, 65_536])
def test_a_port_that_is_none_is_named(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    said = say(capsys, "ui", f"--port={port}")
    assert said.code == 2
    assert f"--port {port}: expected a whole number from 1 to 65535" in said.err


def test_others_are_not_served_without_a_token(capsys: pytest.CaptureFixture[str]) -> None:
    said = say(capsys, "ui", "--host", "0.0.0.0", "--no-browser")
    assert said.code == 2
    assert said.err.startswith("areal-sim: --host 0.0.0.0: others could use the page; set AREAL_UI")
    assert said.err.count("\n") == 1
