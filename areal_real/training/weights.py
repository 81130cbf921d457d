"""Weights in and out of the world, as Hugging Face folders."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from areal_real.training.architecture import Architecture
from areal_real.training.flat import Bucket, Flattener
from areal_real.training.slots import Shapes, Slot
from areal_real.training.tensor_files import (
    DTYPE_NAMES,
    INDEX,
    SINGLE,
    TensorWriter,
    write_json,
)

if TYPE_CHECKING:  # Megatron takes seconds to import
    from areal_real.training.ranks import Ranks

BESIDE = (
    "chat_template*",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer*",
    "vocab.json",
)
"""Files of a model's folder, beside ``config.json``, that an export takes along."""

CONFIG_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def write_tensors(
    ranks: Ranks,
    folder: Path,
    slots: Sequence[Slot],
    values: Callable[[Slot], Tensor],
    dtype: torch.dtype,
    *,
    durable: bool,
) -> str | None:
    """Write one value of every parameter as safetensors, a file for each pipeline stage.

    All processes call it, and whoever cannot write goes on exchanging tensors.

    Args:
        ranks: the place of this process.
        folder: an existing folder.
        slots: the parameters of this stage.
        values: this rank's part of a parameter's value; called on all processes alike.
        dtype: to be written.
        durable: whether to wait for the disk.

    Returns:
        What went wrong on this process.
    """
    shapes: Shapes = {}
    for slot in slots:
        if not slot.copied:
            shapes |= slot.shapes
    number, stages = ranks.pipeline + 1, ranks.pipeline_parallel
    file = SINGLE if stages == 1 else f"model-{number:05d}-of-{stages:05d}.safetensors"
    writer, error = None, None
    if ranks.writes:
        try:
            writer = TensorWriter(folder / file, shapes, dtype)
        except OSError as exc:
            error = describe(exc)
    for name, tensor in _whole_tensors(ranks, slots, values):
        if writer is not None and error is None:
            try:
                writer.write(name, tensor)
            except OSError as exc:
                error = describe(exc)
    if writer is not None:
        try:
            if error is None:
                writer.finish(durable=durable)
            else:
                writer.abandon()
        except OSError as exc:
            error = error or describe(exc)
    told = ranks.gather([file, list(shapes), writer.size_bytes if writer else 0])
    if ranks.rank == 0 and stages > 1 and error is None:
        places = {name: stage_file for stage_file, names, _ in told for name in names}
        total = sum(size for *_, size in told)
        try:
            write_json(
                folder / INDEX,
                {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))},
            )
        except OSError as exc:
            error = describe(exc)
    return error


def write_folder(ranks: Ranks, folder: Path, fill: Callable[[Path], str | None]) -> None:
    """Make a folder that is there whole or not at all. All processes call it.

    Args:
        ranks: the place of this process.
        folder: to be made; one of that name is replaced.
        fill: takes the folder to write into, returns what went wrong on this process.

    Raises:
        BackendError: on all processes alike; what was there before is untouched.
    """
    part = folder.with_name(folder.name + ".part")

    def agree(error: str | None) -> None:
        ranks.agree(f"{folder}: {error}" if error else None)

    try:
        agree(_make(part) if ranks.rank == 0 else None)
        agree(fill(part))
        agree(_replace(part, folder) if ranks.rank == 0 else None)
    finally:
        if ranks.rank == 0:
            shutil.rmtree(part, ignore_errors=True)


def write_config(
    folder: Path, architecture: Architecture, dtype: torch.dtype, beside: Path | None
) -> str | None:
    """Write ``config.json``, and what lay beside it in the folder the model came from.

    Returns:
        What went wrong.
    """
    name = CONFIG_DTYPES[dtype]
    config = {**architecture.config, "architectures": ["Qwen2ForCausalLM"]}
    config["dtype" if "dtype" in config else "torch_dtype"] = name
    try:
        write_json(folder / "config.json", config)
        if beside is not None:
            for pattern in BESIDE:
                for path in beside.glob(pattern):
                    shutil.copyfile(path, folder / path.name)
    except OSError as exc:
        return describe(exc)
    return None


def whole_weights(
    ranks: Ranks,
    slots: Sequence[Slot],
    values: Callable[[Slot], Tensor],
    bucket_bytes: int,
) -> tuple[Bucket, ...]:
    """All weights under Hugging Face's names, copied into the host memory of rank 0.

    All processes call it; it is empty on the others.

    Args:
        ranks: the place of this process.
        slots: the parameters of this stage.
        values: this rank's part of a parameter's value; called on all processes alike.
        bucket_bytes: most bytes of a bucket.
    """
    joined = Flattener(bucket_bytes, pinned=ranks.device.type == "cuda")
    own: dict[str, Tensor] = {}
    for name, tensor in _whole_tensors(ranks, slots, values):
        if ranks.rank == 0:
            joined.add(name, tensor)
        else:
            own[name] = tensor.detach().to("cpu", copy=True)
    if ranks.pipeline_parallel == 1:
        return joined.finish()
    per_stage = ranks.size // ranks.pipeline_parallel
    for stage in range(1, ranks.pipeline_parallel):
        writer = stage * per_stage
        mine = [[name, DTYPE_NAMES[t.dtype], list(t.shape)] for name, t in own.items()]
        for name, kind, shape in ranks.share(mine if ranks.rank == writer else None, writer):
            if ranks.rank == writer:
                dist.send(own[name].contiguous(), 0, ranks.control)
            elif ranks.rank == 0:
                dtype = next(d for d, text in DTYPE_NAMES.items() if text == kind)
                received = torch.empty(shape, dtype=dtype)
                dist.recv(received, writer, ranks.control)
                joined.add(name, received)
    return joined.finish()


def describe(exc: OSError) -> str:
    """Why a write failed, such as "No space left on device"."""
    return exc.strerror or str(exc)


def _whole_tensors(
    ranks: Ranks, slots: Sequence[Slot], values: Callable[[Slot], Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Hugging Face tensors of this stage, on its writing process; none elsewhere."""
    for slot in slots:
        if slot.copied:
            continue
        mine = values(slot)
        if ranks.data != 0:
            continue
        parts = ranks.tensor_parts(mine) if slot.split else [mine]
        if ranks.writes:
            yield from slot.whole(parts).items()


def _make(folder: Path) -> str | None:
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as exc:
        return describe(exc)
    return None


def _replace(part: Path, folder: Path) -> str | None:
    old = folder.with_name(folder.name + ".old")
    try:
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        try:
            part.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    except OSError as exc:
        return describe(exc)
    shutil.rmtree(old, ignore_errors=True)
    return None
