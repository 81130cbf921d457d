"""A checkpoint that is not what was written is not gone on from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from areal_real.checkpoints import Checkpoint, Checkpoints
from areal_real.errors import BackendError

FILES = ("trainer.json", "weights/model.safetensors", "rng/rank-00000.safetensors")


class Writer:
    """Writes a trainer's part."""

    async def save(self, folder: Path) -> None:
        for name in FILES:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode() * 100)


def made(folder: Path, versions: int = 3) -> Checkpoints:
    checkpoints = Checkpoints(folder, keep=versions)
    for version in range(versions):
        asyncio.run(checkpoints.save(Writer(), version, 10 * version))
    return checkpoints


def newest(checkpoints: Checkpoints) -> Checkpoint:
    found = checkpoints.newest()
    assert found is not None
    return found


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lie(path: Path) -> None:
    facts = json.loads(path.read_text())
    facts["journal_entries"] += 1
    path.write_text(json.dumps(facts))


HARM: list[tuple[str, Callable[[Path], None]]] = [
    *((f"trainer/{name}", harm) for name in FILES for harm in (flip, cut, Path.unlink)),
    *(("run.json", harm) for harm in (flip, cut, Path.unlink, lie)),
]


def test_what_is_sound_is_taken(tmp_path: Path) -> None:
    notes: list[str] = []
    found = made(tmp_path).newest_sound(notes.append)
    assert found is not None
    assert (found.version, found.entries) == (2, 20)
    assert notes == []


@pytest.mark.parametrize(
    ("name", "harm"), HARM, ids=[f"{name}-{harm.__name__}" for name, harm in HARM]
)
def test_what_is_damaged_is_set_aside_and_the_one_before_taken(
    tmp_path: Path, name: str, harm: Callable[[Path], None]
) -> None:
    checkpoints = made(tmp_path)
    path = newest(checkpoints).path
    if name == "run.json" and harm is cut:
        path.joinpath(name).write_text("{")  # without its last line break it is as good as before
    else:
        harm(path / name)
    notes: list[str] = []
    found = checkpoints.newest_sound(notes.append)
    assert found is not None
    assert (found.version, found.entries) == (1, 10)
    (note,) = notes
    assert "step-000002" in note
    assert Path(name).name in note
    assert path.with_name("step-000002.damaged").is_dir()
    # The step is done again, and saved where the damaged one was.
    asyncio.run(checkpoints.save(Writer(), 2, 25))
    again = checkpoints.newest_sound(notes.append)
    assert again is not None
    assert (again.version, again.entries) == (2, 25)
    assert len(notes) == 1


def test_with_all_of_them_damaged_it_says_so(tmp_path: Path) -> None:
    checkpoints = made(tmp_path)
    for found in checkpoints.all():
        flip(found.trainer / FILES[1])
    with pytest.raises(BackendError, match="no checkpoint to go on from is sound") as caught:
        checkpoints.newest_sound(lambda note: None)
    for version in range(3):
        assert f"step-{version:06d}: weights/model.safetensors" in str(caught.value)


def test_a_checkpoint_without_checksums_is_taken(tmp_path: Path) -> None:
    """As this program wrote them before."""
    checkpoints = made(tmp_path)
    path = newest(checkpoints).path / "run.json"
    path.write_text(json.dumps({"version": 2, "journal_entries": 20}) + "\n")
    found = checkpoints.newest_sound(lambda note: None)
    assert found is not None
    assert found.version == 2


def test_there_may_be_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path, keep=2).newest_sound(lambda note: None) is None
