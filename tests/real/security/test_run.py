"""A whole short run, watched from outside: who listens where, and who tells the token."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.house.repo import ROOT
from tests.real.run.short import check, command

pytestmark = pytest.mark.slow

LOOK_S = 0.2
RUN_S = 500
DNS_PORT = 53  # RFC 1035, 4.2.1
FILE = "tiny-cpu-tp2.toml"
CHANGED = {
    "scheduler.class": "in_flight",
    "real.server.weight_transfer": "collective",
    "real.server.stream_interval_tokens": 0,
}
"""With two ranks and weights that are sent, so that all that can listen does."""


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


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Watched, str, str]:
    """The folder of a run, what was seen, what it printed, and its token."""
    folder = tmp_path_factory.mktemp("watched") / "run"
    log = folder.with_name("printed")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(FILE, CHANGED, folder),
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
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
    return folder, watched, log.read_text(), (folder / "token").read_text().strip()


def test_it_comes_to_its_end(run: tuple[Path, Watched, str, str]) -> None:
    check(FILE, CHANGED, run[0])


def test_nothing_of_a_run_listens_beyond_loopback(
    run: tuple[Path, Watched, str, str],
) -> None:
    _, watched, _, _ = run
    listening = watched.listening
    who = {name for name, *_ in listening}
    # The run for rank 0, the server, the ranks' store and the weights': else nothing was seen.
    assert {"areal_real.cli", "cpu_launcher", "training.worker"} <= who
    assert {x for x in listening if not _loopback(x[2])} == set()
    assert {x for x in listening if x[1] == "udp"} == set()
    assert watched.foreign == set()
    assert "rewards.worker" in watched.names
    assert "rewards.worker" not in who


def test_the_token_is_told_to_nobody(run: tuple[Path, Watched, str, str]) -> None:
    folder, watched, printed, token = run
    assert len(token) == 64
    assert token not in printed
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


def test_what_holds_a_secret_is_its_owners_alone(run: tuple[Path, Watched, str, str]) -> None:
    folder, _, _, _ = run
    assert (folder / "token").stat().st_mode & 0o777 == 0o600
    assert (folder / "token").stat().st_uid == os.getuid()
    for log in (folder / "logs").glob("server-*.log"):
        assert log.stat().st_mode & 0o077 == 0


def _text(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".gz":
        import gzip

        data = gzip.decompress(data)
    return data.decode(errors="replace")
