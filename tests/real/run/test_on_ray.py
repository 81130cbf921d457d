"""A real run on a Ray cluster: a node joins it, and a node is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from areal_real.cli import main
from areal_real.config import load_config
from areal_real.rows import read_rows
from areal_sched import JournalReader
from areal_sched.events import ServerJoined, ServerLost
from benchmarks.faults.drive import TINY, RealRun
from benchmarks.ray_nodes import environment_of_ray, free_port, ray_nodes
from tests.real.run.test_real_faults import SETTINGS
from tests.real.run.test_run_laws import check_journal

pytest.importorskip("ray", reason="Ray is not installed: run the tests with `make test`")

STEPS = 400
"""More than it gets to: it is stopped when everything has happened."""


@pytest.mark.slow
def test_a_node_that_joins_brings_a_server_and_one_that_leaves_is_an_event(tmp_path: Path) -> None:
    changed = {**SETTINGS, "workload.steps": STEPS, "real.server.max_count": 2}
    with environment_of_ray() as environment, ray_nodes(environment) as nodes:
        run = RealRun(
            tmp_path / "run",
            changed,
            resume=False,
            more=["--engine", "ray", "--address", nodes.address],
        )
        run.until(lambda: run.steps >= 2)
        nodes.add()
        run.until(lambda: "server 1 has joined" in run.text)
        after = run.steps
        run.until(lambda: run.steps >= after + 1)
        nodes.remove()
        # Whatever was on that node: there is room for one server and the trainer.
        run.until(lambda: "lost" in run.text)
        after = run.steps
        run.until(lambda: run.steps >= after + 2)
        run.process.send_signal(signal.SIGINT)
        assert run.wait() == 130, run.text
        assert "--resume" in run.text
        assert json.loads((run.folder / "summary.json").read_text())["interrupted_by_user"]
    done = run.steps
    config = load_config(TINY, [f"{key}={value}" for key, value in changed.items()])
    check_journal(tmp_path / "run" / "journal.jsonl.gz", config, done)
    assert len(read_rows(tmp_path / "run" / "metrics.jsonl")) == done
    events = [entry.event for entry in JournalReader(run.folder / "journal.jsonl.gz").entries()]
    assert {x.server_id for x in events if isinstance(x, ServerJoined)} == {0, 1}
    assert any(isinstance(x, ServerLost) for x in events)
    assert "(raylet)" not in run.text, "Ray's own messages garble the progress bar"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--address", "127.0.0.1:1"], "--address 127.0.0.1:1: belongs to --engine ray"),
        (["--engine", "ray", "--address", "ray://127.0.0.1:1"], "on a node of its cluster"),
        (["--engine", "ray", "--address", "somewhere"], "expected HOST:PORT"),
        (["--engine", "ray", "--address", f"127.0.0.1:{free_port()}"], "cannot be reached"),
    ],
)
def test_a_cluster_that_cannot_be_had(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(TINY), "--out", str(tmp_path / "run"), *arguments]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_node_that_does_not_see_the_run_says_so(tmp_path: Path) -> None:
    """The checks of an actor, in a process of its own, since they join a cluster."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("lost_on_ray.py")), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    blind, other, far, crowded = done.stdout.splitlines()
    assert "does not see" in blind
    assert "other code" in other
    assert "is not the run's own (192.0.2.1)" in far
    assert "no room for server 0: it asks for 64 CPU; the cluster has 1 node," in crowded
