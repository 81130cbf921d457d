"""A trainer's processes: what they are told and answer. Real Megatron-Core."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from areal_real.errors import BackendError
from areal_real.training.world import TrainerWorld
from areal_sched.measurements import TrainerActivity
from tests.real.training import small
from tests.real.training.worlds import SETTINGS, gone

ACTIVITIES = TrainerActivity.__args__


class Used:
    """A world that several tests use, with its event loop and its spans."""

    def __init__(self, folder: Path) -> None:
        self.runner = asyncio.Runner()
        self.folder = folder
        self.model = small.write_config(folder / "model")
        self.batch = folder / "batch.safetensors"
        small.batch().save(self.batch)
        self.spans: list[tuple[str, int, int, int, int, int]] = []
        self.world = TrainerWorld(
            SETTINGS, log=folder / "log", on_span=lambda *span: self.spans.append(span)
        )
        self.run = self.runner.run
        self.run(self.world.start(self.model))


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Used]:
    used = Used(tmp_path_factory.mktemp("world"))
    yield used
    used.run(used.world.stop())
    used.runner.close()
    assert all(gone(pid) for pid in used.world.pids)
    assert not used.world.lost.done(), "a world that is stopped is not lost"


def test_no_torch_in_the_run() -> None:
    code = "import sys, areal_real.training.world; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=small.ROOT)


def test_warm_start_then_training(used: Used) -> None:
    losses = [
        used.run(used.world.supervised(used.batch, learning_rate=1e-2, optimizer_steps=3))["loss"]
        for _ in range(4)
    ]
    assert losses == sorted(losses, reverse=True)
    before = used.run(used.world.logprobs(used.batch))
    stats = used.run(used.world.train(1, used.batch))
    assert stats["optimizer_steps"] == 2
    assert stats["learning_rate"] == pytest.approx(1e-2 * (1 + 2) / 2 / 3), "the warm-up begins"
    after = used.run(used.world.logprobs(used.batch))
    assert before.keys() == after.keys() == set(range(100, 112))
    assert before[100] != after[100]


def test_spans_come_as_they_happen(used: Used) -> None:
    used.spans.clear()
    began_ns = time.monotonic_ns()
    used.run(used.world.train(5, used.batch))
    ended_ns = time.monotonic_ns()
    names = [span[0] for span in used.spans]
    assert names == ["overhead", "proximal", *["minibatch", "optimizer"] * 2]
    assert set(names) <= set(ACTIVITIES)
    clock_ns = began_ns
    for _, version, start_ns, end_ns, waiting_ns, _ in used.spans:
        assert version == 5
        assert clock_ns <= start_ns <= end_ns
        assert waiting_ns == 0, "one process waits for nobody"
        clock_ns = end_ns
    assert clock_ns <= ended_ns
    counts = {name: n for name, *_, n in used.spans}
    assert counts["proximal"] >= counts["minibatch"] > 0


def test_the_proximal_policy_is_the_behaviour_policy_when_nothing_is_stale(used: Used) -> None:
    batch = small.batch(seed=9)
    path = used.folder / "fresh.safetensors"
    batch.save(path)
    logprobs = used.run(used.world.logprobs(path))
    offset = np.arange(len(batch.tokens)) - np.repeat(batch.starts, batch.lengths)
    answers = offset >= np.repeat(batch.prompt_tokens, batch.lengths)
    batch.behaviour_logprobs[answers] = np.concatenate(
        [logprobs[i] for i in batch.rollout_ids.tolist()]
    )
    batch.save(path)
    stats = used.run(used.world.train(6, path))
    assert stats["behaviour_weight"] == 1.0
    assert stats["behaviour_weight_max"] == 1.0
    assert stats["dropped"] == 0.0


def test_an_error_leaves_the_world_alive(used: Used) -> None:
    with pytest.raises(BackendError, match="nowhere: no batch: No such file"):
        used.run(used.world.train(7, used.folder / "nowhere"))
    (used.folder / "broken").write_bytes(b"\0" * 20)
    with pytest.raises(BackendError, match="broken: "):
        used.run(used.world.train(7, used.folder / "broken"))
    used.run(used.world.train(7, used.batch))


def test_export_is_replaced_whole_with_what_lies_beside_the_model(used: Used) -> None:
    (used.model / "tokenizer.json").write_text("{}")
    (used.model / "secret.txt").write_text("not to be copied")
    out = used.folder / "published"
    used.run(used.world.export(out))
    first = load_file(out / "model.safetensors")
    used.run(used.world.train(8, used.batch))
    (out / "stale").write_text("of the export before")
    used.run(used.world.export(out))
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    second = load_file(out / "model.safetensors")
    assert first["model.norm.weight"].tolist() != second["model.norm.weight"].tolist()
    config = json.loads((out / "config.json").read_text())
    assert config["torch_dtype"] == "float32"
    assert config["architectures"] == ["Qwen2ForCausalLM"]
    assert not [path for path in used.folder.iterdir() if path.suffix in (".part", ".old")]


def test_an_export_that_cannot_be_written(used: Used) -> None:
    (used.folder / "file").write_text("")
    with pytest.raises(BackendError, match=r"file/out: Not a directory"):
        used.run(used.world.export(used.folder / "file" / "out"))


def test_a_disk_that_is_full(used: Used, tmp_path: Path) -> None:
    """A file system of 1.6 MB, filled up beside a checkpoint."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=1600k", "tmpfs", disk], capture_output=True
        ).returncode
    ):
        pytest.skip("no right to mount a small file system; a limit on file sizes is tried anyway")
    try:
        used.run(used.world.save(disk / "kept"))
        before = {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}
        (disk / "filling").write_bytes(b"\0" * (shutil.disk_usage(disk).free - 60_000))
        for folder in ("kept", "next"):
            with pytest.raises(BackendError, match=f"{folder}: .*No space left on device"):
                used.run(used.world.save(disk / folder))
        assert sorted(path.name for path in disk.iterdir()) == ["filling", "kept"]
        assert {path: path.read_bytes() for path in before} == before
        (disk / "filling").unlink()
        used.run(used.world.save(disk / "next"))
        assert (disk / "next" / "trainer.json").is_file()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_weights_go_to_a_process_group_while_training_goes_on(used: Used) -> None:
    version = int(used.run(_last_version(used)))
    used.run(used.world.export(used.folder / "published"))
    wanted = load_file(used.folder / "published" / "model.safetensors")
    sender = used.world.sender

    async def send() -> dict[str, np.ndarray]:
        address, port = await sender.listen("weights-0", 2)
        buckets = await sender.buckets(version)
        assert len(buckets) > 2
        shapes = json.dumps([[[s.name, s.dtype, s.shape] for s in bucket] for bucket in buckets])
        out = used.folder / "received.safetensors"
        receiver = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("receiver.py")),
            *(address, str(port), shapes, str(out)),
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        )
        training = asyncio.create_task(used.world.train(version + 1, used.batch))
        await sender.join("weights-0")
        await sender.send("weights-0", version)
        await training
        assert await receiver.wait() == 0
        await sender.leave("weights-0")
        with pytest.raises(BackendError, match="there is no group 'weights-0'"):
            await sender.send("weights-0", version)
        with pytest.raises(BackendError, match=f"version 999 are not held; held: .*{version}"):
            await sender.buckets(999)
        return load_file(out)

    found = used.run(send())
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].tobytes() == array.tobytes(), name


async def _last_version(used: Used) -> int:
    folder = used.folder / "counters"
    await used.world.save(folder)
    return int(json.loads((folder / "trainer.json").read_text())["version"])


def test_a_listener_that_fails_is_no_silence(used: Used) -> None:
    """Spans go to the run's code: what it raises must not leave the run waiting for ever."""

    async def hear() -> None:
        def refuse(*span: object) -> None:
            raise ValueError(f"no such activity: {span[0]}")

        world = TrainerWorld(SETTINGS, log=used.folder / "log", on_span=refuse)
        world._ranks, world._ending = used.world._ranks, used.world._ending
        world.lost = asyncio.get_running_loop().create_future()
        channel = asyncio.StreamReader()
        channel.feed_data(b'{"span": ["nap", 1, 2, 3, 0, 0]}\n')
        await world._watch(channel)
        assert "no such activity: nap" in str(world.lost.result())

    used.run(hear())
