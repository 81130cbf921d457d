"""Weights that come to a server over a process group, from the trainer's rank 0."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Protocol

from areal_real.serving.client import ServerClient


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One tensor of a broadcast.

    Attributes:
        name: as in a Hugging Face state dict.
        dtype: as torch names it, such as ``float32``.
        shape: of the tensor.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


class WeightSender(Protocol):
    """The trainer's side of it, as the serving side sees it from another process.

    Every server has a process group with the trainer of its own, so that servers load
    independently of each other; see `areal_real.serving.broadcast.Broadcaster` for what runs in
    the trainer. Methods raise `BackendError` where they fail.

    Attributes:
        backend: ``gloo`` or ``nccl``.
    """

    @property
    def backend(self) -> str:
        """``gloo`` or ``nccl``."""

    async def listen(self, group: str, world_size: int) -> tuple[str, int]:
        """Offer a group of this size; returns address and port to meet at."""

    async def join(self, group: str) -> None:
        """Enter the group as rank 0; ends when the server is in too."""

    async def buckets(self, version: int) -> Sequence[Sequence[TensorSpec]]:
        """What `send` will send: the tensors of each broadcast, in its order."""

    async def send(self, group: str, version: int) -> None:
        """Broadcast these weights to the group, bucket by bucket."""

    async def leave(self, group: str) -> None:
        """Forget a group, whatever has become of the server."""


async def open_group(
    client: ServerClient, sender: WeightSender, *, group: str, tensor_parallel: int
) -> None:
    """Bring a server's processes and the sender together.

    Raises:
        BackendError: either side failed.
    """
    world_size = 1 + tensor_parallel
    address, port = await sender.listen(group, world_size)
    await _both(
        sender.join(group),
        client.join_group(
            address=address,
            port=port,
            world_size=world_size,
            group=group,
            backend=sender.backend,
        ),
    )


async def update_by_collective(
    client: ServerClient, sender: WeightSender, *, group: str, version: int
) -> None:
    """Load a version into a server that generates nothing, or is paused.

    Raises:
        BackendError: either side failed; the server's weights are then a mixture.
    """
    buckets = await sender.buckets(version)
    await client.begin_update()
    await _both(sender.send(group, version), _receive(client, buckets, group, version))
    await client.end_update()


async def _both(*sides: Coroutine[object, object, None]) -> None:
    """Both at once; where one fails, the other is given up and the failure raised."""
    tasks = [asyncio.create_task(side) for side in sides]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _receive(
    client: ServerClient, buckets: Sequence[Sequence[TensorSpec]], group: str, version: int
) -> None:
    for bucket in buckets:
        await client.receive(
            [tensor.name for tensor in bucket],
            [tensor.dtype for tensor in bucket],
            [tensor.shape for tensor in bucket],
            group=group,
            version=version,
        )
