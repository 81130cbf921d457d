"""Two Ray nodes on this machine, as a program of their own: a test starts it and ends it.

It prints the addresses of the cluster and of its client server, and the process ids of both
raylets, and waits. A line "remove" on stdin takes the newest node away at once, as a power cut
would, and a line "add" brings another, whose raylet it tells; the end of stdin ends everything.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def main() -> None:
    client = free_port()
    cluster = Cluster()
    try:
        head = cluster.add_node(**NODE, ray_client_server_port=client)
        other = cluster.add_node(**NODE)
        cluster.wait_for_nodes()
        print(cluster.address, f"ray://127.0.0.1:{client}", raylet(head), raylet(other), flush=True)
        others = [other]
        for line in sys.stdin:
            if line == "remove\n":
                cluster.remove_node(others.pop(), allow_graceful=False)
                print("removed", flush=True)
            elif line == "add\n":
                others.append(cluster.add_node(**NODE))
                print("added", raylet(others[-1]), flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
