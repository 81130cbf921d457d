"""Two hosts on this machine: network namespaces, each with an address and a Ray node of its own.

Run as a script in a fresh network and process namespace, it makes the second network, starts Ray's
nodes, trains, and prints what listened where as JSON. Everything ends with its namespace.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

HEAD, OTHER = "10.77.0.1", "10.77.0.2"
PATIENCE_S = 240.0


def run(*command: str) -> None:
    """Carry out a command."""
    subprocess.run(command, check=True, timeout=60)


def listening(network_of: int, words: tuple[str, ...]) -> list[str]:
    """Addresses that processes with one of these words in their command listen on there."""
    found = set()
    lines = subprocess.run(
        ["nsenter", "--net", "--target", str(network_of), "ss", "-Hltnup"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for line in lines.splitlines():
        address = line.split()[4].rpartition(":")[0]
        for part in line.split("pid=")[1:]:
            pid = int(part.partition(",")[0])
            try:
                told = " ".join(psutil.Process(pid).cmdline())
            except psutil.Error:
                continue
            if any(word in told for word in words):
                found.add(address)
    return sorted(found)


def main(folder: Path, *train: str) -> None:
    """Set up, train, tell."""
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
    ray += ["--object-store-memory=80000000"]
    other = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
    time.sleep(0.5)
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "host-a", "type", "veth", "peer", "name", "host-b")
    run("ip", "link", "set", "host-b", "netns", str(other.pid))
    run("ip", "addr", "add", f"{HEAD}/24", "dev", "host-a")
    run("ip", "link", "set", "host-a", "up")
    there = ["nsenter", "--net", "--target", str(other.pid)]
    run(*there, "ip", "link", "set", "lo", "up")
    run(*there, "ip", "addr", "add", f"{OTHER}/24", "dev", "host-b")
    run(*there, "ip", "link", "set", "host-b", "up")
    head = [*ray, "--head", f"--node-ip-address={HEAD}", "--port=6379"]
    head += ["--include-dashboard=false", f"--temp-dir={os.environ['RAY_TMPDIR']}"]
    subprocess.Popen(head, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    second = [*there, *ray, f"--address={HEAD}:6379", f"--node-ip-address={OTHER}"]
    subprocess.Popen(second, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_nodes()
    with (folder / "train.log").open("wb") as log:
        training = subprocess.Popen(
            [sys.executable, "-m", "areal_real.cli", "train", *train],
            stdout=log,
            stderr=log,
        )
    until = time.monotonic() + PATIENCE_S
    rows = folder / "run" / "metrics.jsonl"
    while not (rows.exists() and rows.read_text()) and training.poll() is None:
        assert time.monotonic() < until, "no step"
        time.sleep(0.2)
    # Ray chose who is where.
    words = {"trainer": ("areal_real.training.worker",), "server": ("cpu_launcher", "sglang::")}
    told: dict[str, object] = {
        part: sorted({*listening(os.getpid(), names), *listening(other.pid, names)})
        for part, names in words.items()
    }
    told["status"] = training.wait(PATIENCE_S)
    print(json.dumps(told))


def wait_for_nodes() -> None:
    """Until both nodes have joined."""
    asks = "import ray; ray.init('auto', log_to_driver=False); print(len(ray.nodes()))"
    until = time.monotonic() + PATIENCE_S
    while True:
        told = subprocess.run(
            [sys.executable, "-c", asks], capture_output=True, text=True, check=False
        )
        if told.stdout.strip() == "2":
            return
        assert time.monotonic() < until, told.stderr[-1000:]


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
