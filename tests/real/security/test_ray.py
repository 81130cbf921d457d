"""Ray: one of our own is ours alone; a cluster's token is asked for, and a run shows it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.ray_nodes import environment_of_ray, ray_nodes
from tests.house.repo import ROOT

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

LOOK = """
import json, sys, warnings
warnings.simplefilter("ignore")
import psutil, ray
from areal_real.config import load_config
from areal_real.placement.join import joined
from areal_sched.errors import ConfigError

config = load_config("configs/real/tiny-cpu.toml", [])
try:
    with joined(sys.argv[1] or None, config) as ray:
        worked = ray.get(ray.remote(lambda: 21 * 2).remote(), timeout=120)
        me = psutil.Process()
        found = {
            (process.name(), connection.laddr.ip)
            for process in [me, *me.children(recursive=True)]
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN or connection.type == 2
        }
        print(json.dumps({"worked": worked, "listening": sorted(found)}))
except ConfigError as exc:
    print(json.dumps({"refused": str(exc)}))
"""


def look(address: str, **variables: str) -> dict[str, object]:
    """Join a cluster in a process of its own, with these variables of Ray."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    done = subprocess.run(
        [sys.executable, "-c", LOOK, address],
        cwd=ROOT,
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_ray_of_our_own_listens_on_loopback_and_leaves_no_token(tmp_path: Path) -> None:
    found = look("", HOME=str(tmp_path))
    assert found["worked"] == 42
    listening = found["listening"]
    assert isinstance(listening, list)
    assert {"gcs_server", "raylet"} <= {name for name, _ in listening}
    strangers = [x for x in listening if x[1].removeprefix("::ffff:") not in ("127.0.0.1", "::1")]
    assert not strangers
    assert not (tmp_path / ".ray").exists()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a cluster that asks for the token in a file."""
    token = tmp_path / "ray-token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    asked = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    with environment_of_ray() as environment, ray_nodes({**environment, **asked}) as nodes:
        yield nodes.address, token


def test_a_cluster_with_a_token_refuses_who_has_none(
    cluster: tuple[str, Path], tmp_path: Path
) -> None:
    address, token = cluster
    wrong = tmp_path / "wrong"
    wrong.write_text("0" * 64)
    home = {"HOME": str(tmp_path)}
    # One of three ways to have no token: Ray takes a quarter of a minute to refuse each.
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(wrong)}
    refused = str(look(address, **home, **variables)["refused"])
    assert refused.startswith(f"--address {address}: ")
    assert "RAY_AUTH_MODE" in refused, refused
    assert "\n" not in refused
    right = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    assert look(address, **home, **right)["worked"] == 42
