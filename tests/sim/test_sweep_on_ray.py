"""Sweeps on Ray: what they give, and what a lost worker or node costs."""

from __future__ import annotations

import json
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from areal_sim.cli import main
from areal_sim.config import load_config
from areal_sim.pools.on_ray import RETRIES, _worker_side
from areal_sim.pools.work import source_sha256
from benchmarks.ray_nodes import Nodes, environment_of_ray, ray_nodes

ROOT = Path(__file__).parents[2]
HOME = ROOT / "configs" / "home-8gpu.toml"
pytest.importorskip("ray", reason="Ray is not installed: run the tests with `make test`")

VARIED = ["--vary", "limits.eta=0,1,2,4"]
SHORT = ["--set", "workload.steps=2"]
TWO_LONG = ["--vary", "limits.eta=0,1", "--set", "workload.steps=30"]


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with environment_of_ray() as variables:
        yield variables


@pytest.fixture(scope="module")
def nodes(environment: dict[str, str]) -> Iterator[Nodes]:
    with ray_nodes(environment) as started:
        yield started


def _sweep(*arguments: object, env: dict[str, str], cwd: Path = ROOT) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "areal_sim.cli", "sweep", *map(str, arguments), "--quiet"]
    return subprocess.Popen(
        command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """What it said on stderr; on stdout are the table and a last line."""
    told, error = process.communicate(timeout=300)
    assert process.returncode == code, error
    assert told.startswith("*") == (code == 0), told
    return error


def _here(*arguments: str, out: Path) -> bytes:
    """The table of the same sweep in processes of this machine."""
    assert main(["sweep", str(HOME), *arguments, "--quiet", "--out", str(out)]) == 0
    return (out / "results.csv").read_bytes()


def _wait_until(what: str, holds: object, limit_s: float = 120) -> None:
    until = time.monotonic() + limit_s
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < until, what
        time.sleep(0.05)


def _listens(client: str, limit_s: float = 30) -> bool:
    """Whether somebody does at ``ray://HOST:PORT``, or comes to."""
    host, _, port = client.removeprefix("ray://").rpartition(":")
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        try:
            with socket.create_connection((host, int(port)), timeout=1):
                return True
        except OSError:
            time.sleep(0.2)
    return False


def _busy(nodes: Nodes) -> list[list[int]]:
    """The processes of each node that simulate."""
    return [_simulating(raylet) for raylet in nodes.raylets]


def _simulating(raylet: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{raylet}/task").iterdir():
        for child in (task / "children").read_text().split():
            with_name = Path(f"/proc/{child}/cmdline")
            if with_name.exists() and "ray::simulate" in with_name.read_text():
                found.append(int(child))
    return found


@pytest.mark.slow
def test_a_cluster_gives_what_this_machine_gives(
    nodes: Nodes, environment: dict[str, str], tmp_path: Path
) -> None:
    environment = environment | {"RAY_ADDRESS": nodes.address}
    out = tmp_path / "ray"
    sweep = _sweep(HOME, *VARIED, *SHORT, "--engine", "ray", "--out", out, env=environment)
    assert _ended(sweep) == "", "Ray says nothing"
    assert (out / "results.csv").read_bytes() == _here(*VARIED, *SHORT, out=tmp_path / "here")
    again = ["--engine", "ray", "--address", "host.invalid:1"]
    _ended(_sweep(HOME, *VARIED, *SHORT, *again, "--out", out, env=environment))
    # Nothing was left to simulate, so nobody was asked.


@pytest.mark.slow
def test_a_machine_that_is_no_node_asks_the_client_server(
    nodes: Nodes, environment: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "ray"
    if not _listens(nodes.client):
        pytest.skip("Ray's own client server does not listen")
    asked = ["--vary", "limits.eta=1", *SHORT, "--engine", "ray", "--address", nodes.client]
    sweep = _sweep(HOME, *asked, "--out", out, env=environment)
    told, error = sweep.communicate(timeout=300)
    if sweep.returncode == 2 and ("no Ray cluster answered" in error or "with Ray" in error):
        pytest.skip(f"Ray's own client server gave no connection: {error.strip()}")
    assert (sweep.returncode, error) == (0, ""), told
    assert len((out / "results.csv").read_text().splitlines()) == 2


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished_and_cancels_the_rest(
    nodes: Nodes, environment: dict[str, str], tmp_path: Path
) -> None:
    # The longest begin first: of two nodes one has the endless run, the other comes to the short.
    asked = ["--vary", "workload.steps=20000,3,2", "--engine", "ray", "--address", nodes.address]
    process = _sweep(HOME, *asked, "--out", tmp_path, env=environment)
    _wait_until("one is finished", lambda: list(tmp_path.glob("simulated/*.json")))
    process.send_signal(signal.SIGINT)
    assert _ended(process, 130) == "areal-sim: interrupted\n"
    _wait_until("nobody simulates", lambda: not any(_busy(nodes)))
    assert list(tmp_path.glob("simulated/*.json")), "what was finished is kept"
    assert not list(tmp_path.glob("simulated/*.tmp"))


@pytest.mark.slow
def test_a_wrong_configuration_is_said_as_everywhere(
    nodes: Nodes, environment: dict[str, str], tmp_path: Path
) -> None:
    asked = ["--vary", "model.name=32b,7b", "--engine", "ray", "--address", nodes.address]
    told = _ended(_sweep(HOME, *asked, "--out", tmp_path, env=environment), 2)
    assert "too much" in told
    assert len(told.splitlines()) == 1


DEADLY = """
import os, signal
from areal_sched.schedulers.areal import Areal

class Deadly(Areal):
    def decide(self, event, view):
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_task_that_kills_every_worker_ends_the_sweep(
    nodes: Nodes, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "deadly.py").write_text(DEADLY)
    asked = ["--vary", "limits.eta=1", "--set", "scheduler.class=deadly:Deadly", "--engine", "ray"]
    asked += ["--address", nodes.address, "--out", "out"]
    told = _ended(_sweep(HOME, *asked, cwd=tmp_path, env=environment), 1)
    assert told == (
        f"areal-sim: eta=1: its Ray task was lost {RETRIES + 1} times (WorkerCrashedError); what"
        " was finished is kept\n"
    )


@pytest.mark.slow
def test_a_ray_of_our_own_leaves_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    place = Path(tempfile.mkdtemp(prefix="t-"))
    environment = environment | {"TMPDIR": str(place)}
    asked = [*VARIED, *SHORT, "--engine", "ray", "--jobs", "1", "--out", tmp_path / "ray"]
    assert _ended(_sweep(HOME, *asked, env=environment)) == ""
    table = (tmp_path / "ray" / "results.csv").read_bytes()
    assert table == _here(*VARIED, *SHORT, out=tmp_path / "here")
    assert not list(place.glob("areal-*")), "its folder is removed"
    left = [x for x in Path("/proc").glob("[0-9]*/cmdline") if str(place) in _text(x)]
    assert left == [], "its processes have ended"
    shutil.rmtree(place)


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # has ended meanwhile
        return ""


OTHER_CODE = """
import sys
from areal_sim.cli import main
from areal_sim.pools import on_ray
on_ray.source_sha256 = lambda: "other"
sys.exit(main(["sweep", *sys.argv[1:]]))
"""


@pytest.mark.slow
def test_a_node_with_other_code_is_refused(
    nodes: Nodes, environment: dict[str, str], tmp_path: Path
) -> None:
    asked = ["--vary", "limits.eta=1", *SHORT, "--engine", "ray", "--address", nodes.address]
    told = subprocess.run(
        [sys.executable, "-c", OTHER_CODE, str(HOME), *asked, "--quiet", "--out", str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert told.returncode == 1
    assert "has other code than this machine; install the same version" in told.stderr
    assert len(told.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("simulated/*"))


@pytest.mark.slow
def test_a_lost_node_costs_its_own_tasks_alone(
    nodes: Nodes, environment: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "ray"
    asked = [*TWO_LONG, "--engine", "ray", "--address", nodes.address]
    process = _sweep(HOME, *asked, "--out", out, env=environment)
    _wait_until("both nodes are busy", lambda: all(_busy(nodes)))
    nodes.remove()  # so this is the last test with that cluster
    assert _ended(process) == ""
    assert (out / "results.csv").read_bytes() == _here(*TWO_LONG, out=tmp_path / "here")


def test_what_a_worker_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The function Ray gets works without this project, and says so."""
    config = load_config(HOME, ["workload.steps=1"])
    payload, simulate = pickle.dumps((config, "a")), _worker_side()
    problem, summary = simulate(payload, source_sha256())
    assert problem == ""
    assert summary is not None
    assert json.dumps(summary)
    assert "has other code" in simulate(payload, "other")[0]
    monkeypatch.setitem(sys.modules, "areal_sim.pools.work", None)
    problem, summary = simulate(payload, source_sha256())
    assert "lacks the code of this machine" in problem
    assert summary is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--address", "127.0.0.1:1"], "--address 127.0.0.1:1: cannot be reached: Connection ref"),
        (["--address", "ray://127.0.0.1:1"], "--address ray://127.0.0.1:1: cannot be reached"),
        (["--address", "head"], "--address head: expected HOST:PORT, ray://HOST:PORT or auto"),
        (["--address", "head:x"], "--address head:x: expected HOST:PORT"),
        (["--address", "http://head:1"], "--address http://head:1: expected HOST:PORT"),
        ([], "RAY_ADDRESS=127.0.0.1:1: cannot be reached"),
        (["--jobs", "0"], "jobs = 0: must be at least 1"),
        (["--engine", "local", "--address", "a:1"], "--address a:1: only with --engine ray"),
    ],
)
def test_no_such_cluster(
    tmp_path: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: run the tests with `make test`")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    asked = ["--engine", "ray", *arguments, "--quiet", "--out", str(tmp_path)]
    assert main(["sweep", str(HOME), *VARIED, *SHORT, *asked]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1


def test_ray_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    asked = ["--engine", "ray", "--quiet", "--out", str(tmp_path)]
    assert main(["sweep", str(HOME), *VARIED, *SHORT, *asked]) == 2
    assert "pip install 'areal-lab[ray]'" in capsys.readouterr().err
