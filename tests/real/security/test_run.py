"""A whole short run, watched from outside: who listens where, and who tells the token.

It is a run of the tutorial's scheduler, and comes to its end as any other.
"""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from areal_real.config import load_config
from areal_real.rows import read_rows
from tests.house.repo import ROOT
from tests.real.run.test_run_laws import check_journal

pytestmark = pytest.mark.slow

LOOK_S = 0.2
RUN_S = 500
DNS_PORT = 53  # RFC 1035, 4.2.1
CONFIG = ROOT / "configs" / "real" / "tiny-cpu-tp2.toml"
STEPS = 3
SETTINGS = {
    "scheduler.class": "examples.generate_ahead:GenerateAhead",
    "workload.steps": STEPS,
    "workload.prompts_per_step": 4,
    "workload.group_size": 4,
    "limits.max_rollouts_in_flight": 32,
    "real.server.weight_transfer": "collective",
    "real.server.stream_interval_tokens": 0,
    "real.warm_start.steps": 10,
    "real.evaluation.every_steps": "inf",
    "real.evaluation.problems": 4,
}
"""Two ranks, and weights that are sent, so that all that can listen does."""
OVERRIDES = [f"{key}={value}" for key, value in SETTINGS.items()]


class Watched:
    """What was seen of a process and all that it started."""

    def __init__(self) -> None:
        self.listening: set[tuple[str, str, str, int]] = set()  # who, kind, address, port
        self.foreign: set[tuple[str, str]] = set()  # who, the address that it talks to
        self.command_lines: set[str] = set()
        self.environments: set[tuple[str, str]] = set()
        self.names: set[str] = set()

    def look(self, root: psutil.Process) -> None:
        """At all of them, as they are now."""
        for process in [root, *root.children(recursive=True)]:
            try:
                line = " ".join(process.cmdline())
                who = _kind(line, process)
                self.names.add(who)
                self.command_lines.add(line)
                self.environments |= {(who, value) for value in process.environ().values()}
                for connection in process.net_connections("inet"):
                    kind = "udp" if connection.type == 2 else "tcp"
                    peer = connection.raddr  # who alone is heard, also with UDP
                    if connection.status == psutil.CONN_LISTEN or (kind == "udp" and not peer):
                        place = connection.laddr
                        self.listening.add((who, kind, place.ip, place.port))
                    elif kind == "udp" and peer.port == DNS_PORT:
                        continue  # torch's store wants a name for the address of who connects
                    elif peer and not _loopback(peer.ip):
                        self.foreign.add((who, peer.ip))
            except psutil.Error:
                continue  # it has just ended


def _kind(line: str, process: psutil.Process) -> str:
    for word in ("cpu_launcher", "training.worker", "rewards.worker", "areal_real.cli"):
        if word in line:
            return word
    return str(process.name())


def _loopback(address: str) -> bool:
    found = ipaddress.ip_address(address)
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that is over: its folder, what was seen of it, and what it printed."""

    folder: Path
    watched: Watched
    stdout: str
    stderr: str

    @property
    def token(self) -> str:
        return (self.folder / "token").read_text().strip()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run, which is watched to its end."""
    base = tmp_path_factory.mktemp("watched")
    folder, printed, log = base / "run", base / "stdout", base / "stderr"
    words = [word for override in OVERRIDES for word in ("--set", override)]
    with printed.open("wb") as stdout, log.open("wb") as stderr:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "areal_real.cli", "train", str(CONFIG)),
                *("--out", str(folder), "--json", *words),
            ],
            cwd=ROOT,
            stdout=stdout,
            stderr=stderr,
        )
    watched, seen = Watched(), psutil.Process(process.pid)
    give_up_s = time.monotonic() + RUN_S
    try:
        while process.poll() is None:
            assert time.monotonic() < give_up_s, "the run does not end"
            watched.look(seen)
            time.sleep(LOOK_S)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
    assert process.returncode == 0, log.read_text()
    return Run(folder=folder, watched=watched, stdout=printed.read_text(), stderr=log.read_text())


def test_it_comes_to_its_end(run: Run) -> None:
    summary = json.loads(run.stdout)
    assert summary["steps"] == STEPS
    assert summary["recomputed_tokens"] >= 0
    check_journal(run.folder / "journal.jsonl.gz", load_config(CONFIG, OVERRIDES), STEPS)
    for picture in ("timeline.png", "learning.png"):
        assert (run.folder / picture).stat().st_size > 10_000


def test_what_is_learnt_from_is_as_stale_as_is_said(run: Run) -> None:
    rows = read_rows(run.folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        # What the schedule counts on is never younger than what the server says.
        assert -1e-9 <= row["lag/reported_mean"] <= row["lag/mean"] + 1e-9
        assert row["lag/max"] <= 2
        if row["lag/max"] == 0:
            # Nothing is stale: after any transfer of weights the trainer computes the very
            # log-probabilities that the server reported.
            assert row["trainer/behaviour_weight_max"] == pytest.approx(1.0, abs=1e-4)
    assert rows[0]["lag/max"] == 0


def test_nothing_of_a_run_listens_beyond_loopback(run: Run) -> None:
    watched, listening = run.watched, run.watched.listening
    who = {name for name, *_ in listening}
    # The run for rank 0, the server, the ranks' store and the weights': else nothing was seen.
    assert {"areal_real.cli", "cpu_launcher", "training.worker"} <= who
    assert {x for x in listening if not _loopback(x[2])} == set()
    assert {x for x in listening if x[1] == "udp"} == set()
    assert watched.foreign == set()
    assert "rewards.worker" in watched.names
    assert "rewards.worker" not in who


def test_the_token_is_told_to_nobody(run: Run) -> None:
    folder, watched, token = run.folder, run.watched, run.token
    assert len(token) == 64
    assert token not in run.stdout + run.stderr
    assert not [line for line in watched.command_lines if token in line]
    # Rank 0 has it from its environment, which only its owner can read.
    holders = {who for who, value in watched.environments if token in value}
    assert holders <= {"training.worker"}
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"journal.jsonl.gz", "config.toml", "summary.json", "metrics.jsonl"} <= {
        path.name for path in files
    }
    assert [x for x in files if "server" in x.name and x.suffix == ".log"]
    assert [path for path in files if token in _text(path)] == [folder / "token"]


def test_what_holds_a_secret_is_its_owners_alone(run: Run) -> None:
    kept = (run.folder / "token").stat()
    assert kept.st_mode & 0o777 == 0o600
    assert kept.st_uid == os.getuid()
    for log in (run.folder / "logs").glob("server-*.log"):
        assert log.stat().st_mode & 0o077 == 0


def _text(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".gz":
        import gzip

        data = gzip.decompress(data)
    return data.decode(errors="replace")
