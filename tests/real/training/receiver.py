"""Run as a script: takes weights from a process group, as an inference server does."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import distributed


def main(address: str, port: str, shapes: str, out: str) -> None:
    """Join as rank 1 of 2, receive, write."""
    timeout = timedelta(seconds=60)
    store = distributed.TCPStore(address, int(port), 2, is_master=False, timeout=timeout)
    group, _ = distributed.distributed_c10d._new_process_group_helper(
        2,
        1,
        [],
        distributed.Backend("gloo"),
        distributed.PrefixStore("weights-0", store),
        group_name="weights-0",
        timeout=timeout,
    )
    distributed.distributed_c10d._world.pg_group_ranks[group] = {0: 0, 1: 1}
    tensors = {}
    for name, dtype, shape in json.loads(shapes):
        tensors[name] = torch.empty(shape, dtype=getattr(torch, dtype))
        distributed.broadcast(tensors[name], src=0, group=group)
    save_file(tensors, Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
