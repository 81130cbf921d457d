"""Runs in the trainer's rank 0: sends weights to one server over a process group of their own."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from datetime import timedelta

import torch
from torch import distributed


class Broadcaster:
    """Rank 0 of a process group with one server's processes.

    It is beside the trainer's own groups and needs none of them. The other side is SGLang's
    ``init_custom_process_group``: a store at an address, keys under the group's name.

    Args:
        group: its name.
        world_size: 1 and the server's processes.
        backend: ``gloo`` or ``nccl``.
        host: address to listen on, which the server can reach.
        device: that tensors are sent from; ``nccl`` needs a GPU of this process.
        timeout_s: of meeting, and of each broadcast.

    Attributes:
        port: to be told to the server.
    """

    def __init__(
        self,
        group: str,
        world_size: int,
        *,
        backend: str = "gloo",
        host: str = "127.0.0.1",
        device: str = "cpu",
        timeout_s: float = 300.0,
    ) -> None:
        self._name = group
        self._world_size = world_size
        self._backend = backend
        self._device = torch.device(device)
        self._timeout = timedelta(seconds=timeout_s)
        self._group: distributed.ProcessGroup | None = None
        # A socket of our own: a store by itself listens on all of the machine's addresses.
        self._socket = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
        self.port = int(self._socket.getsockname()[1])
        self._store = distributed.TCPStore(
            host,
            self.port,
            world_size,
            is_master=True,
            timeout=self._timeout,
            wait_for_workers=False,
            master_listen_fd=self._socket.fileno(),
        )

    def join(self) -> None:
        """Enter the group; returns when the server is in too (``nccl``: at the first `send`)."""
        self._group, _ = distributed.distributed_c10d._new_process_group_helper(
            self._world_size,
            0,
            [],
            distributed.Backend(self._backend),
            distributed.PrefixStore(self._name, self._store),
            group_name=self._name,
            timeout=self._timeout,
        )
        distributed.distributed_c10d._world.pg_group_ranks[self._group] = {
            rank: rank for rank in range(self._world_size)
        }

    def send(self, tensors: Iterable[torch.Tensor]) -> None:
        """Broadcast tensors one after the other; the server must expect them in this order.

        Raises:
            RuntimeError: the group has not been joined, or the server is gone.
        """
        if self._group is None:
            raise RuntimeError(f"group {self._name!r} has not been joined")
        for tensor in tensors:
            distributed.broadcast(
                tensor.detach().to(self._device).contiguous(), src=0, group=self._group
            )

    def close(self) -> None:
        """Leave the group; may be called again."""
        if self._group is not None:
            distributed.destroy_process_group(self._group)
            self._group = None
