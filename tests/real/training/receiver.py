"""Run as a script: takes weights from a process group, as an inference server does."""

from __future__ import annotations

import json
import os
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
    for bucket in json.loads(shapes):
        named = [(n, torch.empty(s, dtype=getattr(torch, d))) for n, d, s in bucket]
        flat = torch.empty(sum(tensor.nbytes for _, tensor in named), dtype=torch.uint8)
        distributed.broadcast(flat, src=0, group=group)
        sizes = [tensor.nbytes for _, tensor in named]
        for (name, tensor), part in zip(named, flat.split(sizes), strict=True):
            tensors[name] = part.view(tensor.dtype).view(tensor.shape).clone()
    save_file(tensors, Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # an interpreter that ends in good order may meet gloo's threads, and abort
