"""Run as a script: a broadcaster whose receiver takes nothing until two buckets are prepared."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed, multiprocessing

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from areal_real.serving.broadcast import Broadcaster

TIMEOUT_S = 20.0


def _receive(port: int, prepared: list[object], result: object) -> None:
    timeout = timedelta(seconds=TIMEOUT_S)
    store = distributed.TCPStore("127.0.0.1", port, 2, is_master=False, timeout=timeout)
    group, _ = distributed.distributed_c10d._new_process_group_helper(
        2,
        1,
        [],
        distributed.Backend("gloo"),
        distributed.PrefixStore("overlap", store),
        group_name="overlap",
        timeout=timeout,
    )
    distributed.distributed_c10d._world.pg_group_ranks[group] = {0: 0, 1: 1}
    bucket = torch.empty(1000)
    for number in range(len(prepared)):
        # The next one is there before this one has gone anywhere.
        following = prepared[min(number + 1, len(prepared) - 1)]
        if not following.wait(TIMEOUT_S):  # type: ignore[attr-defined]
            result.put(f"bucket {number + 1} was not prepared meanwhile")  # type: ignore[attr-defined]
            return
        if number + 2 < len(prepared) and prepared[number + 2].is_set():  # type: ignore[attr-defined]
            result.put(f"bucket {number + 2} was prepared too early")  # type: ignore[attr-defined]
            return
        distributed.broadcast(bucket, src=0, group=group)
        if not torch.equal(bucket, torch.full((1000,), float(number))):
            result.put(f"bucket {number} is another")  # type: ignore[attr-defined]
            return
    result.put("all received")  # type: ignore[attr-defined]


def main() -> None:
    """Send four buckets; print what the receiver says."""
    processes = multiprocessing.get_context("spawn")
    prepared = [processes.Event() for _ in range(4)]
    result = processes.Queue()
    broadcaster = Broadcaster("overlap", 2, timeout_s=TIMEOUT_S)
    receiver = processes.Process(
        target=_receive, args=(broadcaster.port, prepared, result), daemon=True
    )
    receiver.start()
    broadcaster.join()

    def buckets():  # type: ignore[no-untyped-def]
        for number, event in enumerate(prepared):
            event.set()
            yield torch.full((1000,), float(number))

    try:
        broadcaster.send(buckets())
    except RuntimeError as error:
        print(error, file=sys.stderr)
    print(result.get(timeout=TIMEOUT_S))
    receiver.join()
    broadcaster.close()


if __name__ == "__main__":
    main()
