"""A real run over two hosts: what is discovered, and what listens where."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from areal_real.config import load_config
from benchmarks.faults.drive import TINY
from benchmarks.ray_nodes import environment_of_ray
from tests.house.repo import ROOT
from tests.real.run.test_real_faults import SETTINGS
from tests.real.run.test_run_laws import check_journal
from tests.real.run.two_hosts import HEAD, OTHER

pytestmark = pytest.mark.slow

OF_ITS_OWN = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
STEPS = 6


def test_a_run_over_two_hosts_listens_on_their_addresses_alone(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: run the tests with `make test`")
    if not shutil.which("ip") or subprocess.run([*OF_ITS_OWN, "true"], check=False).returncode:
        pytest.skip("network namespaces need iproute2 and the rights of root")
    changed = {
        **SETTINGS,
        "scheduler.class": "in_flight",
        "workload.steps": STEPS,
        "real.listen": "cluster",
        "real.server.weight_transfer": "collective",
    }
    overrides = [x for key, value in changed.items() for x in ("--set", f"{key}={value}")]
    run = tmp_path / "run"
    with environment_of_ray() as environment:
        ray = ["--engine", "ray", "--address", f"{HEAD}:6379"]
        script = str(Path(__file__).with_name("two_hosts.py"))
        done = subprocess.run(
            [
                *(*OF_ITS_OWN, sys.executable, script, str(tmp_path)),
                *(str(TINY), "--out", str(run), *overrides, *ray),
            ],
            env={**environment, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "5" * 64},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
    log = tmp_path / "train.log"
    assert done.returncode == 0, done.stderr[-3000:] + (log.read_text() if log.exists() else "")
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["status"] == 0, log.read_text()
    # One CPU on each host: the trainer is on one and the server on the other.
    apart = [set(told[part]) - {"127.0.0.1"} for part in ("trainer", "server")]
    assert sorted(apart, key=sorted) == [{HEAD}, {OTHER}], told
    config = load_config(TINY, [f"{key}={value}" for key, value in changed.items()])
    check_journal(run / "journal.jsonl.gz", config, STEPS)
