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
        self._copying: torch.cuda.Stream | None = None
        # A socket of our own: a store by itself listens on all of the machine's addresses.
        listening = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
        self.port = int(listening.getsockname()[1])
        self._store = distributed.TCPStore(
            host,
            self.port,
            world_size,
            is_master=True,
            timeout=self._timeout,
            wait_for_workers=False,
            # The store closes it. Closed by us too, its number might be another thread's file.
            master_listen_fd=listening.detach(),
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

    def send(self, buckets: Iterable[torch.Tensor]) -> None:
        """Broadcast tensors one after the other; the server must expect them in this order.

        While one is being broadcast, the next is taken from `buckets` and copied to the device: at
        most two are there at a time.

        Raises:
            RuntimeError: the group has not been joined, or the server is gone.
        """
        if self._group is None:
            raise RuntimeError(f"group {self._name!r} has not been joined")
        under_way: tuple[distributed.Work, torch.Tensor] | None = None
        for bucket in buckets:
            staged = self._stage(bucket)
            if under_way is not None:
                self._finish(under_way[0])
            work = distributed.broadcast(staged, src=0, group=self._group, async_op=True)
            under_way = work, staged  # whose memory is not to be used again before it is sent
        if under_way is not None:
            self._finish(under_way[0])

    def _stage(self, bucket: torch.Tensor) -> torch.Tensor:
        if self._device.type != "cuda":
            return bucket.detach().contiguous()
        # On a stream of its own, so that it does not wait for the broadcast that is under way.
        if self._copying is None:
            self._copying = torch.cuda.Stream(self._device)
        with torch.cuda.stream(self._copying):
            staged = bucket.detach().to(self._device, non_blocking=True)
        self._copying.synchronize()
        return staged

    def _finish(self, broadcast: distributed.Work) -> None:
        broadcast.wait()
        if self._device.type == "cuda":  # where waiting only orders streams
            torch.cuda.current_stream(self._device).synchronize()

    def close(self) -> None:
        """Leave the group; may be called again."""
        if self._group is not None:
            distributed.destroy_process_group(self._group)
            self._group = None
