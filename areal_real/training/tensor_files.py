"""Safetensors files, written and read a tensor at a time: no model has to fit into memory twice."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from areal_sched.errors import ConfigError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
LARGEST_INDEX_BYTES = 2**26
"""Of a folder's index; one of a model with a hundred thousand tensors has 10 MB."""

DTYPE_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


class TensorSource(Protocol):
    """Where weights come from, under Hugging Face's names."""

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows of a tensor; a vector's entries."""

    def columns(self, name: str, start: int, stop: int) -> Tensor:
        """Columns of a matrix."""


class TensorFolder:
    """Tensors of a folder of safetensors files, one file or several with an index.

    Args:
        folder: where the files are.
        shapes: shape of every tensor that is wanted.

    Raises:
        ConfigError: a file cannot be read or is none of this folder, or a tensor is missing, of
            another shape, or not of floating-point numbers.
    """

    def __init__(self, folder: Path, shapes: Mapping[str, Sequence[int]]) -> None:
        self._folder = folder
        self._files: dict[str, Any] = {}
        self._places = self._where()
        for name, shape in shapes.items():
            if name not in self._places:
                raise ConfigError(f"{folder}: there is no tensor {name}")
            tensor = self._slice(name)
            found = tensor.get_shape()
            if tensor.get_dtype() not in DTYPE_NAMES.values():
                raise ConfigError(
                    f"{folder}: {name} is of {tensor.get_dtype()}, not one of"
                    f" {', '.join(DTYPE_NAMES.values())}"
                )
            if list(found) != list(shape):
                raise ConfigError(
                    f"{folder}: {name} has shape {tuple(found)}, config.json makes it"
                    f" {tuple(shape)}"
                )

    @staticmethod
    def holds_tensors(folder: Path) -> bool:
        """Whether there are weights in a folder."""
        return (folder / INDEX).is_file() or (folder / SINGLE).is_file()

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """See `TensorSource`."""
        tensor: Tensor = self._slice(name)[start:stop]
        return tensor

    def columns(self, name: str, start: int, stop: int) -> Tensor:
        """See `TensorSource`."""
        tensor: Tensor = self._slice(name)[:, start:stop]
        return tensor

    def _where(self) -> dict[str, str]:
        index = self._folder / INDEX
        if not index.is_file():
            return dict.fromkeys(self._open(SINGLE).keys(), SINGLE)
        try:
            if index.stat().st_size > LARGEST_INDEX_BYTES:
                raise ValueError(f"more than {LARGEST_INDEX_BYTES} bytes")
            told = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            places = {str(name): str(file) for name, file in told.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise ConfigError(f"{index}: no index of safetensors files: {exc!r}") from None
        for file in places.values():
            if Path(file).name != file or file in ("", ".."):
                raise ConfigError(f"{index}: {file!r} is no file of this folder")
        return places

    def _open(self, file: str) -> Any:
        if file not in self._files:
            try:
                self._files[file] = safe_open(self._folder / file, "pt")
            except (OSError, SafetensorError) as exc:
                raise ConfigError(f"{self._folder / file}: {exc}") from None
        return self._files[file]

    def _slice(self, name: str) -> Any:
        file = self._places[name]
        try:
            return self._open(file).get_slice(name)
        except SafetensorError as exc:
            raise ConfigError(f"{self._folder / file}: {exc}") from None


@dataclass(frozen=True, slots=True)
class RandomTensors:
    """Weights of a new model: normal matrices, biases 0, norms 1; alike in every layout.

    Attributes:
        shapes: of all tensors.
        seed: together with a tensor's name it fixes the tensor.
        std: standard deviation.
    """

    shapes: Mapping[str, Sequence[int]]
    seed: int
    std: float

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """See `TensorSource`."""
        return self._tensor(name)[start:stop]

    def columns(self, name: str, start: int, stop: int) -> Tensor:
        """See `TensorSource`."""
        return self._tensor(name)[:, start:stop]

    def _tensor(self, name: str) -> Tensor:
        shape = tuple(self.shapes[name])
        if len(shape) == 1:
            return torch.zeros(shape) if name.endswith(".bias") else torch.ones(shape)
        # 2 ** 61 - 1 is prime; the name's bytes are digits of a number to that module.
        key = int.from_bytes(f"{self.seed}/{name}".encode(), "big") % (2**61 - 1)
        generator = torch.Generator().manual_seed(key)
        return torch.empty(shape).normal_(0.0, self.std, generator=generator)


class TensorWriter:
    """Writes one safetensors file, tensors in the order of `shapes`.

    Args:
        path: the file.
        shapes: name to shape, of all tensors.
        dtype: of all tensors.
    """

    def __init__(self, path: Path, shapes: Mapping[str, Sequence[int]], dtype: torch.dtype) -> None:
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        self.size_bytes = 0
        for name, shape in shapes.items():
            end = self.size_bytes + torch.Size(shape).numel() * dtype.itemsize
            header[name] = {
                "dtype": DTYPE_NAMES[dtype],
                "shape": list(shape),
                "data_offsets": [self.size_bytes, end],
            }
            self.size_bytes = end
        text = json.dumps(header).encode()
        text = text.ljust(-(-len(text) // 8) * 8)
        self._dtype = dtype
        self._waiting = iter(shapes.items())
        # Without a buffer: what does not fit fails where it is written, and not at the closing.
        self._file = path.open("wb", buffering=0)
        self._put(memoryview(len(text).to_bytes(8, "little") + text))

    def write(self, name: str, tensor: Tensor) -> None:
        """Write the next tensor."""
        expected, shape = next(self._waiting)
        if name != expected or tuple(tensor.shape) != tuple(shape):
            raise ValueError(f"{name} {tuple(tensor.shape)} where {expected} {tuple(shape)} is due")
        raw = tensor.detach().to("cpu", self._dtype).contiguous().view(-1).view(torch.uint8)
        self._put(raw.numpy().data)

    def _put(self, data: memoryview) -> None:
        while data:
            data = data[self._file.write(data) :]

    def finish(self, *, durable: bool) -> None:
        """Close the file; `durable`: once it is on the disk."""
        if (missing := next(self._waiting, None)) is not None:
            raise ValueError(f"{missing[0]} was not written")
        if durable:
            os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        """Close a file that is not going to be whole."""
        self._file.close()


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file to the disk."""
    with path.open("wb") as file:
        file.write((json.dumps(value, indent=2) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())
