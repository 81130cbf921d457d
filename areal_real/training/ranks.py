"""The processes of a world: who is which part of the model, and how they agree."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from torch import Tensor

from areal_real.errors import BackendError
from areal_real.training.control import STORE_VARIABLE
from areal_real.training.settings import TrainerSettings

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}

CONTROL_TIMEOUT = timedelta(days=7)
"""Processes wait in the control group for the next command, however long that takes."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's place, and the groups it talks in.

    Attributes:
        rank, size: in the world.
        tensor, pipeline, data: its coordinates; `tensor_parallel` and so on are their ranges.
        tensor_group, data_group: processes that differ from it in that coordinate only.
        control: all processes, over gloo on every device, for commands and agreement.
        device: of its tensors.
    """

    rank: int
    size: int
    tensor: int
    tensor_parallel: int
    pipeline: int
    pipeline_parallel: int
    data: int
    data_parallel: int
    tensor_group: dist.ProcessGroup
    data_group: dist.ProcessGroup
    control: dist.ProcessGroup
    device: torch.device

    @property
    def writes(self) -> bool:
        """Whether this process writes its stage's weights to files."""
        return self.tensor == 0 and self.data == 0

    @property
    def last_stage(self) -> bool:
        """Whether this process has log-probabilities."""
        return self.pipeline == self.pipeline_parallel - 1

    def gather(self, value: Any) -> list[Any]:
        """Values of all processes by rank, as JSON; empty but on rank 0. All processes call it."""
        mine = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        if self.size == 1:
            return [json.loads(bytes(mine.numpy()))]
        length = torch.tensor([len(mine)])
        lengths = [torch.zeros_like(length) for _ in range(self.size)]
        dist.all_gather(lengths, length, self.control)
        longest = int(max(lengths))
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in range(self.size)] if self.rank == 0 else None
        dist.gather(padded, parts, 0, self.control)
        return [
            json.loads(bytes(part[: int(n)].numpy()))
            for part, n in zip(parts or (), lengths, strict=False)
        ]

    def share(self, value: Any, source: int = 0) -> Any:
        """The value of one process, on all of them, as JSON. All processes call it."""
        text = json.dumps(value).encode() if self.rank == source else b""
        if self.size == 1:
            return json.loads(text)
        length = torch.tensor([len(text)])
        dist.broadcast(length, source, self.control)
        data = torch.frombuffer(bytearray(text.ljust(int(length))), dtype=torch.uint8)
        dist.broadcast(data, source, self.control)
        return json.loads(bytes(data.numpy()))

    def agree(self, error: str | None) -> None:
        """Go on if no process has an error. All processes call it.

        Raises:
            BackendError: on every process alike, with the errors of those that have one.
        """
        told = self.share([text for text in self.gather(error) if text is not None])
        if told:
            raise BackendError("; ".join(dict.fromkeys(told)))

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier(self.control)

    def tensor_parts(self, mine: Tensor) -> Sequence[Tensor]:
        """Parts of all tensor-parallel ranks, on the first of them; on the others only its own."""
        if self.tensor_parallel == 1:
            return [mine]
        parts = None
        if self.tensor == 0:
            parts = [torch.empty_like(mine) for _ in range(self.tensor_parallel)]
        first = dist.get_global_rank(self.tensor_group, 0)
        dist.gather(mine.contiguous(), parts, first, self.tensor_group)
        return parts or [mine]


def join(settings: TrainerSettings) -> Ranks:
    """Take this process's place, as its environment says: ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``.

    Processes meet where `areal_real.training.launch.environment` says, or as torchrun would have
    them.

    Raises:
        BackendError: another number of processes was started, or torch finds no GPU.
    """
    if settings.device == "cuda":
        if not torch.cuda.is_available():
            raise BackendError(
                f'real.device = "cuda": torch {torch.__version__} finds no GPU here;'
                " areal-real check says what is missing"
            )
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        device = torch.device("cuda", torch.cuda.current_device())
    else:
        device = torch.device("cpu")
    if not dist.is_initialized():
        _meet(BACKENDS[settings.device])
    size = dist.get_world_size()
    if size != settings.processes:
        raise BackendError(f"{size} processes were started, the layout has {settings.processes}")
    control = dist.new_group(backend="gloo", timeout=CONTROL_TIMEOUT)
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=settings.tensor_parallel,
        pipeline_model_parallel_size=settings.pipeline_parallel,
        create_gloo_process_groups=False,
    )
    return Ranks(
        rank=dist.get_rank(),
        size=size,
        tensor=parallel_state.get_tensor_model_parallel_rank(),
        tensor_parallel=settings.tensor_parallel,
        pipeline=parallel_state.get_pipeline_model_parallel_rank(),
        pipeline_parallel=settings.pipeline_parallel,
        data=parallel_state.get_data_parallel_rank(),
        data_parallel=settings.data_parallel,
        tensor_group=parallel_state.get_tensor_model_parallel_group(),
        data_group=parallel_state.get_data_parallel_group(),
        control=control,
        device=device,
    )


def _meet(backend: str) -> None:
    place = os.environ.get(STORE_VARIABLE)
    if place is None:
        dist.init_process_group(backend)
        return
    host, port = place.split()
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    # A socket of our own: a store by itself listens on all of the machine's addresses.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, int(port)), family=family) if rank == 0 else None
    store = dist.TCPStore(
        host,
        int(port),
        size,
        is_master=rank == 0,
        wait_for_workers=False,
        master_listen_fd=None if listening is None else listening.detach(),
    )
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)


def leave() -> None:
    """Give the place up, so that another layout can be joined."""
    parallel_state.destroy_model_parallel()
