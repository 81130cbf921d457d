"""Rank 0's side of weights that go to servers over process groups: beside the training.

It runs in threads of its own, so that servers can take weights in while the next step trains.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

from areal_real.errors import BackendError
from areal_real.placement.roles import LOOPBACK
from areal_real.serving.broadcast import Broadcaster
from areal_real.training.control import LISTEN_VARIABLE
from areal_real.training.flat import Bucket

DTYPE_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


class Sending:
    """Holds the newest published weights and sends them to whoever joined.

    Args:
        device: of the trainer, which decides between gloo and NCCL.
        versions: how many versions are held.
    """

    def __init__(self, device: torch.device, versions: int) -> None:
        self._device = device
        self._versions = versions
        self._held: dict[int, Sequence[Bucket]] = {}
        self._groups: dict[str, Broadcaster] = {}
        self._lock = threading.Lock()

    def hold(self, version: int, weights: Sequence[Bucket]) -> None:
        """Keep weights in host memory, in place of the oldest."""
        with self._lock:
            self._held[version] = weights
            while len(self._held) > self._versions:
                del self._held[min(self._held)]

    def carry_out(self, message: dict[str, Any], answer: Callable[[dict[str, Any]], None]) -> None:
        """Do what a message asks in a thread of its own, and answer it."""

        def work() -> None:
            try:
                action: Callable[..., Any] = getattr(self, "_" + message["aside"])
                result = action(**message["options"])
            except Exception as exc:
                # Whatever it is, the server gets no weights and the run decides; training goes on.
                answer({"id": message["id"], "error": f"{exc}", "kind": "backend"})
            else:
                answer({"id": message["id"], "result": result})

        threading.Thread(target=work, daemon=True, name=message["aside"]).start()

    def _listen(self, group: str, world_size: int) -> list[Any]:
        self._leave(group)
        backend = "nccl" if self._device.type == "cuda" else "gloo"
        host = os.environ.get(LISTEN_VARIABLE, LOOPBACK)
        broadcaster = Broadcaster(
            group, world_size, backend=backend, host=host, device=str(self._device)
        )
        with self._lock:
            self._groups[group] = broadcaster
        return [host, broadcaster.port]

    def _join(self, group: str) -> None:
        self._group(group).join()

    def _buckets(self, version: int) -> list[Any]:
        return [
            [
                [name, DTYPE_NAMES[bucket.dtype], list(shape)]
                for name, shape in zip(bucket.names, bucket.shapes, strict=True)
            ]
            for bucket in self._weights(version)
        ]

    def _send(self, group: str, version: int) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)  # of this thread
        self._group(group).send(bucket.flat for bucket in self._weights(version))

    def _leave(self, group: str) -> None:
        with self._lock:
            broadcaster = self._groups.pop(group, None)
        if broadcaster is not None:
            broadcaster.close()

    def _group(self, name: str) -> Broadcaster:
        with self._lock:
            if name not in self._groups:
                raise BackendError(f"there is no group {name!r}")
            return self._groups[name]

    def _weights(self, version: int) -> Sequence[Bucket]:
        with self._lock:
            if version not in self._held:
                held = ", ".join(map(str, self._held)) or "none"
                raise BackendError(f"weights of version {version} are not held; held: {held}")
            return self._held[version]
