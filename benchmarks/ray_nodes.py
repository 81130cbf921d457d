"""Ray nodes on this machine, as a program of their own: `ray_nodes` starts it and ends it.

It prints the addresses of the cluster and of its client server, and the process ids of all
raylets, and waits. A line "remove" on stdin takes the newest node away at once, as a power cut
would, and a line "add" brings another, whose raylet it tells; the end of stdin ends everything.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

NODE = {"object_store_memory": 80 * 2**20, "include_dashboard": False}


@dataclass
class Nodes:
    """A cluster.

    Attributes:
        process: the program.
        address, client: of the cluster, and of its client server.
        raylets: process ids, of the head first.
    """

    process: subprocess.Popen[str]
    address: str
    client: str
    raylets: list[int]

    def remove(self) -> None:
        """Take the newest node away, as a power cut would."""
        assert self._told("remove") == ["removed"]
        self.raylets.pop()

    def add(self) -> None:
        """Bring one more node."""
        word, raylet = self._told("add")
        assert word == "added"
        self.raylets.append(int(raylet))

    def _told(self, word: str) -> list[str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().split()


@contextlib.contextmanager
def environment_of_ray() -> Iterator[dict[str, str]]:
    """Variables for Ray's processes, with a folder that is gone afterwards."""
    # Its sockets have long names, and a path to one may have 107 bytes.
    folder = tempfile.mkdtemp(prefix="r-")
    ours = {"PYTHONPATH": str(ROOT), "RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0"}
    try:
        yield {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | ours
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def ray_nodes(environment: dict[str, str], cpus: Sequence[int] = (1, 1)) -> Iterator[Nodes]:
    """Start a cluster; it ends with this.

    Args:
        environment: of `environment_of_ray`.
        cpus: of each node, the head's first.
    """
    process = subprocess.Popen(
        [sys.executable, __file__, *map(str, cpus)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        address, client, *raylets = process.stdout.readline().split()
        yield Nodes(process, address, client, [int(pid) for pid in raylets])
    finally:
        process.communicate(timeout=60)  # it ends with its stdin
        assert process.returncode == 0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def main(cpus: Sequence[int]) -> None:
    """Start nodes, take commands."""
    from ray.cluster_utils import Cluster

    client = free_port()
    cluster = Cluster()
    try:
        head = cluster.add_node(**NODE, num_cpus=cpus[0], ray_client_server_port=client)
        others = [cluster.add_node(**NODE, num_cpus=count) for count in cpus[1:]]
        cluster.wait_for_nodes()
        raylets = [_raylet(node) for node in (head, *others)]
        print(cluster.address, f"ray://127.0.0.1:{client}", *raylets, flush=True)
        for line in sys.stdin:
            if line == "remove\n":
                cluster.remove_node(others.pop(), allow_graceful=False)
                print("removed", flush=True)
            elif line == "add\n":
                others.append(cluster.add_node(**NODE, num_cpus=1))
                print("added", _raylet(others[-1]), flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main([int(x) for x in sys.argv[1:]])
