"""Checkpoints: everything that training goes on from, bit for bit.

A checkpoint is a folder::

    trainer.json            counters
    weights/                float32 master weights, itself a Hugging Face folder
    exp_avg/, exp_avg_sq/   Adam's moments, under the same names
    rng/rank-00000.safetensors   random state of each process

Tensors are whole and bear Hugging Face's names, so a checkpoint can be taken up in any parallel
layout; in the same one training goes on exactly as it would have.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from areal_real.training.architecture import Architecture
from areal_real.training.optimizer import KINDS, Kind, Optimizer
from areal_real.training.slots import Slot, all_shapes
from areal_real.training.tensor_files import TensorFolder, write_json
from areal_real.training.weights import (
    describe,
    write_config,
    write_folder,
    write_tensors,
)
from areal_sched.errors import ConfigError

if TYPE_CHECKING:  # Megatron takes seconds to import
    from areal_real.training.ranks import Ranks

FORMAT = 1
_FACTS = "trainer.json"
_FOLDERS = {"weight": "weights", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}

Pairs = Sequence[tuple[Slot, Tensor]]


@dataclass(slots=True)
class Counters:
    """What training counts.

    Attributes:
        version: of the weights.
        phase: ``none``, ``supervised`` or ``policy``.
        optimizer_steps: since the phase began; Adam's and the learning rate's.
    """

    version: int = 0
    phase: str = "none"
    optimizer_steps: int = 0


def is_checkpoint(folder: Path) -> bool:
    """Whether `save` wrote a folder."""
    return (folder / _FACTS).is_file()


def weights_folder(folder: Path) -> Path:
    """The Hugging Face folder inside a checkpoint."""
    return folder / _FOLDERS["weight"]


def save(
    folder: Path,
    ranks: Ranks,
    optimizer: Optimizer,
    pairs: Pairs,
    counters: Counters,
    architecture: Architecture,
    *,
    beside: Path,
) -> None:
    """Write a checkpoint, whole or not at all. All processes call it.

    Raises:
        BackendError: on all processes alike; what was there before is untouched.
    """
    slots = [slot for slot, _ in pairs]
    parameters = {slot.parameter: parameter for slot, parameter in pairs}

    def value(kind: Kind, slot: Slot) -> Tensor:
        return optimizer.value(parameters[slot.parameter], kind)

    def fill(part: Path) -> str | None:
        error = None
        if ranks.rank == 0:
            try:
                for name in (*_FOLDERS.values(), "rng"):
                    (part / name).mkdir()
            except OSError as exc:
                error = describe(exc)
        ranks.agree(f"{folder}: {error}" if error else None)
        for kind in KINDS:
            failed = write_tensors(
                ranks,
                part / _FOLDERS[kind],
                slots,
                partial(value, kind),
                torch.float32,
                durable=True,
            )
            error = error or failed
        try:
            save_file(_random_state(), _rng_file(part, ranks.rank))
            if ranks.rank == 0:
                facts = {
                    "format": FORMAT,
                    "processes": ranks.size,
                    "device": ranks.device.type,
                    **dataclasses.asdict(counters),
                }
                write_json(part / _FACTS, facts)
        except SafetensorError as exc:
            error = error or str(exc)
        except OSError as exc:
            error = error or describe(exc)
        if ranks.rank == 0:
            failed = write_config(weights_folder(part), architecture, torch.float32, beside)
            error = error or failed
        return error

    write_folder(ranks, folder, fill)


def load(folder: Path, ranks: Ranks, optimizer: Optimizer, pairs: Pairs) -> Counters:
    """Take training up. All processes call it.

    Raises:
        ConfigError: the checkpoint cannot be read.
    """
    path = folder / _FACTS
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if facts.get("format") != FORMAT:
            raise ValueError(f"format = {facts.get('format')!r}, this program reads {FORMAT}")
        counters = Counters(
            version=int(facts["version"]),
            phase=str(facts["phase"]),
            optimizer_steps=int(facts["optimizer_steps"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ConfigError(f"{path}: no checkpoint of a trainer: {exc}") from None
    shapes = all_shapes(Architecture.read(weights_folder(folder)))
    for kind in KINDS:
        if kind != "weight" and not counters.optimizer_steps:
            continue
        source = TensorFolder(folder / _FOLDERS[kind], shapes)
        for slot, parameter in pairs:
            optimizer.put(parameter, kind, slot.read(source))
    if counters.optimizer_steps:
        optimizer.set_steps(counters.optimizer_steps)
    # Nothing in a training step is random today. Another layout begins with fresh random states.
    if (facts.get("processes"), facts.get("device")) == (ranks.size, ranks.device.type):
        _set_random_state(_rng_file(folder, ranks.rank))
    return counters


def _rng_file(folder: Path, rank: int) -> Path:
    return folder / "rng" / f"rank-{rank:05d}.safetensors"


def _random_state() -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(path: Path) -> None:
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as exc:
        raise ConfigError(f"{path}: {exc}") from None
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
