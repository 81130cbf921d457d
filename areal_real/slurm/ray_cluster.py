"""Called inside a job: where Ray's head is to listen, and whether its nodes are there.

::

    python -m areal_real.slurm.ray_cluster head [ADDRESS OF ANOTHER NODE]
    python -m areal_real.slurm.ray_cluster wait HOST:PORT NODES
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Sequence

PATIENCE_S = 300.0
"""For nodes to join; a busy file system takes its time to import Ray."""

_DISCARD = 9


def head(other: str) -> tuple[str, int, int]:
    """Where the head listens: address, port, and the port of the client server.

    Args:
        other: another node's address; empty: there is none, so loopback does. The head's address is
            the one from which that node is reached, which a host's own name often does not tell.
    """
    here = "127.0.0.1"
    if other:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((other, _DISCARD))  # no packet is sent
            here = probe.getsockname()[0]
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(2):
            one = stack.enter_context(socket.socket())
            one.bind((here, 0))
            ports.append(int(one.getsockname()[1]))
    return here, ports[0], ports[1]


def wait(address: str, nodes: int, patience_s: float = PATIENCE_S) -> bool:
    """Wait until so many nodes are there; whether they are."""
    end_s = time.monotonic() + patience_s
    host, _, port = address.rpartition(":")
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            break
        except OSError:
            if time.monotonic() > end_s:
                return False
            time.sleep(0.2)
    import ray

    ray.init(address=address, log_to_driver=False, logging_level="warning")
    try:
        while sum(node["Alive"] for node in ray.nodes()) < nodes:
            if time.monotonic() > end_s:
                return False
            time.sleep(0.5)
    finally:
        ray.shutdown()
    return True


def main(arguments: Sequence[str]) -> int:
    """Carry out a command line."""
    if arguments[0] == "head":
        print(*head(arguments[1]))
        return 0
    _, address, nodes = arguments
    if not wait(address, int(nodes)):
        print(f"{address}: fewer than {nodes} nodes of Ray are there", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
