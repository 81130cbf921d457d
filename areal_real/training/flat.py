"""Weights in host memory as servers take them: flattened, many tensors to a bucket.

A broadcast of its own for each tensor costs more than its bytes where tensors are small. So they
are put one behind the other while they are copied off the device anyway, once for all servers.
SGLang takes such a bucket apart again (``load_format = "flattened_bucket"``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Bucket:
    """Tensors of one data type, one behind the other.

    Attributes:
        names, shapes: of the tensors, in order.
        dtype: of all of them.
        flat: their bytes, uint8, in host memory.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype
    flat: Tensor

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Each tensor under its name, as a view."""
        start = 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            end = start + torch.Size(shape).numel() * self.dtype.itemsize
            yield name, self.flat[start:end].view(self.dtype).view(shape)
            start = end


class Flattener:
    """Copies tensors into buckets.

    Args:
        bucket_bytes: most bytes of a bucket; a larger tensor has one for itself.
        pinned: whether the memory is to be page-locked, for copies to a GPU.
    """

    def __init__(self, bucket_bytes: int, *, pinned: bool = False) -> None:
        self._most = bucket_bytes
        self._pinned = pinned
        self._waiting: list[tuple[str, Tensor]] = []
        self._bytes = 0
        self._buckets: list[Bucket] = []

    def add(self, name: str, tensor: Tensor) -> None:
        """Take one more; it must not change before `finish`."""
        tensor = tensor.detach()
        other = self._waiting and self._waiting[0][1].dtype != tensor.dtype
        if self._waiting and (other or self._bytes + tensor.nbytes > self._most):
            self._close()
        self._waiting.append((name, tensor))
        self._bytes += tensor.nbytes

    def finish(self) -> tuple[Bucket, ...]:
        """The buckets, filled."""
        if self._waiting:
            self._close()
        if self._pinned:
            torch.cuda.synchronize()
        buckets, self._buckets = tuple(self._buckets), []
        return buckets

    def _close(self) -> None:
        tensors = [tensor for _, tensor in self._waiting]
        bucket = Bucket(
            tuple(name for name, _ in self._waiting),
            tuple(tuple(tensor.shape) for tensor in tensors),
            tensors[0].dtype,
            torch.empty(self._bytes, dtype=torch.uint8, pin_memory=self._pinned),
        )
        for (_, to), tensor in zip(bucket.tensors(), tensors, strict=True):
            to.copy_(tensor, non_blocking=self._pinned)
        self._buckets.append(bucket)
        self._waiting, self._bytes = [], 0
