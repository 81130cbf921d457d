"""The trainer as a sender of weights, for servers: `areal_real.serving.collective.WeightSender`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from areal_real.serving.collective import TensorSpec


class WorldSender:
    """Sends weights that a `TrainerWorld` has exported, one process group for each server.

    Training goes on meanwhile. The world's settings must hold versions.

    Args:
        ask: sends a message to rank 0 beside the commands, returns its answer.
        backend: ``gloo`` or ``nccl``.
    """

    def __init__(self, ask: Callable[..., Awaitable[Any]], backend: str) -> None:
        self._ask = ask
        self._backend = backend

    @property
    def backend(self) -> str:
        """``gloo`` or ``nccl``."""
        return self._backend

    async def listen(self, group: str, world_size: int) -> tuple[str, int]:
        """Offer a group of this size; returns address and port to meet at."""
        address, port = await self._ask("listen", group=group, world_size=world_size)
        return address, port

    async def join(self, group: str) -> None:
        """Enter the group as rank 0; ends when the server is in too."""
        await self._ask("join", group=group)

    async def buckets(self, version: int) -> Sequence[Sequence[TensorSpec]]:
        """What `send` will send: the tensors of each broadcast, in its order."""
        return [
            [
                TensorSpec(name=name, dtype=dtype, shape=tuple(shape))
                for name, dtype, shape in bucket
            ]
            for bucket in await self._ask("buckets", version=version)
        ]

    async def send(self, group: str, version: int) -> None:
        """Broadcast these weights to the group, bucket by bucket."""
        await self._ask("send", group=group, version=version)

    async def leave(self, group: str) -> None:
        """Forget a group, whatever has become of the server."""
        await self._ask("leave", group=group)
