"""Batches and weights that are broken or hostile: a clear error, and nothing is made of them."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from areal_real.errors import BackendError
from areal_real.training.batch import Batch
from areal_sched.errors import ConfigError
from tests.real.training import small

FIELDS = [field.name for field in dataclasses.fields(Batch)]


def safetensors(header: Any, data: bytes = b"", *, says: int | None = None) -> bytes:
    """A file by hand: length of the header, header, data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if says is None else says) + text + data


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


BROKEN = {
    "nothing": b"",
    "seven bytes": b"\0" * 7,
    "a pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x94.",
    "a header of 16 EiB": safetensors(b"{}", says=2**64 - 1),
    "a header of 1 GiB": safetensors(b"{}", says=2**30),
    "no JSON": safetensors(b"{'x': 1}"),
    "deep": safetensors(b'{"x":' + b"[" * 100_000),
    "a list": safetensors([]),
    "no dtype": safetensors({"tokens": {"shape": [1], "data_offsets": [0, 8]}}, b"\0" * 8),
    "an unknown dtype": safetensors({"tokens": entry("OBJECT", [1], 0, 8)}, b"\0" * 8),
    "beyond the end": safetensors({"tokens": entry("I64", [4], 0, 32)}, b"\0" * 8),
    "a shape that is not its bytes": safetensors({"tokens": entry("I64", [9], 0, 8)}, b"\0" * 8),
    "a shape that overflows": safetensors(
        {"tokens": entry("I64", [2**62, 2**62], 0, 8)}, b"\0" * 8
    ),
    "negative offsets": safetensors({"tokens": entry("I64", [1], -8, 0)}, b"\0" * 8),
    "a hole": safetensors({"tokens": entry("I64", [1], 8, 16)}, b"\0" * 16),
    "overlap": safetensors(
        {"tokens": entry("I64", [1], 0, 8), "versions": entry("I64", [1], 0, 8)}, b"\0" * 8
    ),
    "another tensor": safetensors({"weight": entry("F32", [2], 0, 8)}, b"\0" * 8),
    "no tensor": safetensors({}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_batch(name: str, tmp_path: Path) -> None:
    path = tmp_path / "batch.safetensors"
    path.write_bytes(BROKEN[name])
    with pytest.raises(BackendError, match="no batch"):
        Batch.load(path)


def test_a_batch_that_is_not_there_or_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "batch.safetensors"
    with pytest.raises(BackendError, match="No such file"):
        Batch.load(path)
    small.batch().save(path)
    whole = path.read_bytes()
    Batch.load(path)
    for length in (len(whole) - 1, len(whole) // 2, 100, 8):
        path.write_bytes(whole[:length])
        with pytest.raises(BackendError, match="no batch"):
            Batch.load(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(BackendError, match="no batch"):
        Batch.load(path)


Change = Callable[[Batch], dict[str, Any]]
WRONG: dict[str, Change] = {
    "tokens of fractions": lambda b: {"tokens": b.tokens.astype(np.float32)},
    "tokens of 32 bits": lambda b: {"tokens": b.tokens.astype(np.int32)},
    "tokens of two dimensions": lambda b: {"tokens": b.tokens[None]},
    "a negative token": lambda b: {"tokens": b.tokens - 100},
    "too few tokens": lambda b: {"tokens": b.tokens[:-1]},
    "lengths of no dimension": lambda b: {"lengths": np.array(3, np.int64)},
    "a length of none": lambda b: {"lengths": b.lengths * (np.arange(len(b)) > 0)},
    "a length that is negative": lambda b: {
        "lengths": b.lengths
        + np.eye(1, len(b), 0, np.int64)[0] * -1000
        + np.eye(1, len(b), 1, np.int64)[0] * 1000
    },
    "lengths whose sum overflows": lambda b: {
        "lengths": b.lengths + (np.arange(len(b)) < 4) * np.int64(2**62)
    },
    "a prompt longer than its sequence": lambda b: {"prompt_tokens": b.lengths + 1},
    "a negative prompt": lambda b: {"prompt_tokens": b.prompt_tokens - 10},
    "too few rewards": lambda b: {"rewards": b.rewards[:-1]},
    "a reward that is no number": lambda b: {"rewards": b.rewards * np.float32("nan")},
    "an endless log-prob": lambda b: {
        "behaviour_logprobs": b.behaviour_logprobs - np.float32("inf")
    },
    "log-probs of 64 bits": lambda b: {
        "behaviour_logprobs": b.behaviour_logprobs.astype(np.float64)
    },
    "too many versions": lambda b: {"versions": np.append(b.versions, 0)},
    "groups of bytes": lambda b: {"group_ids": b.group_ids.astype(np.uint8)},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_batch_that_contradicts_itself(name: str, tmp_path: Path) -> None:
    path = tmp_path / "batch.safetensors"
    batch = small.batch()
    dataclasses.replace(batch, **WRONG[name](batch)).save(path)
    with pytest.raises(BackendError, match="no batch"):
        Batch.load(path)


# ---- weights -----------------------------------------------------------------------------------

SHAPE = [2, 3]
WEIGHT = safetensors({"w": entry("F32", SHAPE, 0, 24)}, b"\0" * 24)


def read(folder: Path) -> None:
    pytest.importorskip("torch")
    from areal_real.training.tensor_files import TensorFolder

    assert TensorFolder(folder, {"w": SHAPE}).rows("w", 0, 2).shape == (2, 3)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_file_of_weights(name: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(BROKEN[name])
    with pytest.raises(ConfigError, match=str(tmp_path)):
        read(tmp_path)


@pytest.mark.parametrize(
    ("header", "data", "told"),
    [
        ({"w": entry("F32", [3, 2], 0, 24)}, 24, r"has shape \(3, 2\)"),
        ({"w": entry("F32", [6], 0, 24)}, 24, r"has shape \(6,\)"),
        ({"w": entry("I32", SHAPE, 0, 24)}, 24, "is of I32"),
        ({"w": entry("BOOL", SHAPE, 0, 6)}, 6, "is of BOOL"),
        ({"v": entry("F32", SHAPE, 0, 24)}, 24, "there is no tensor w"),
    ],
)
def test_weights_of_another_kind(header: Any, data: int, told: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(safetensors(header, b"\0" * data))
    with pytest.raises(ConfigError, match=told):
        read(tmp_path)


@pytest.mark.parametrize(
    ("index", "told"),
    [
        (b"", "no index"),
        (b"[]", "no index"),
        (b"{}", "no index"),
        (b'{"weight_map": 3}', "no index"),
        (b'{"weight_map": ["w"]}', "no index"),
        (b"[" * 100_000, "no index"),
        (b"\xff\xfe", "no index"),
        (b'{"weight_map": {"w": "../outside.safetensors"}}', "no file of this folder"),
        (b'{"weight_map": {"w": "/outside.safetensors"}}', "no file of this folder"),
        (b'{"weight_map": {"w": ""}}', "no file of this folder"),
        (b'{"weight_map": {"w": ".."}}', "no file of this folder"),
        (b'{"weight_map": {"w": "missing.safetensors"}}', "No such file"),
        (b'{"weight_map": {"w": "part.safetensors"}}', None),
    ],
)
def test_indices(index: bytes, told: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside.safetensors").write_bytes(WEIGHT)
    (folder / "part.safetensors").write_bytes(WEIGHT)
    (folder / "model.safetensors.index.json").write_bytes(index)
    if told is None:
        read(folder)
        return
    with pytest.raises(ConfigError, match=told):
        read(folder)


def test_an_index_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from areal_real.training import tensor_files

    monkeypatch.setattr(tensor_files, "LARGEST_INDEX_BYTES", 100)
    index = {"weight_map": {"w": "part.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index).ljust(101))
    with pytest.raises(ConfigError, match="more than 100 bytes"):
        read(tmp_path)
