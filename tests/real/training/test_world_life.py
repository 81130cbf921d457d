"""A trainer's processes: started, given up, killed, abandoned. Real Megatron."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from areal_real.errors import BackendError, TrainerLost
from areal_real.placement.local import LocalRanks, start_ranks
from areal_real.placement.roles import Contact
from areal_real.training.control import PORT_VARIABLE
from areal_real.training.settings import TrainerSettings
from areal_real.training.world import TrainerWorld
from areal_sched.errors import ConfigError
from tests.real.training import small
from tests.real.training.worlds import DEAD_S, SETTINGS, TWO_SETTINGS, gone


class TestStarting:
    def test_a_model_that_cannot_be_trained(self, tmp_path: Path) -> None:
        async def start() -> TrainerWorld:
            world = TrainerWorld(SETTINGS, log=tmp_path / "log")
            model = small.write_config(tmp_path / "model", model_type="bert")
            with pytest.raises(ConfigError, match="model_type = 'bert'"):
                await world.start(model)
            return world

        world = asyncio.run(start())
        assert len(world.pids) == 1
        assert all(gone(pid) for pid in world.pids)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_a_gpu_that_is_not_there(self, tmp_path: Path) -> None:
        async def start() -> None:
            settings = TrainerSettings(**{**small.ONE_STEP, "device": "cuda"})
            world = TrainerWorld(settings, log=tmp_path / "log")
            with pytest.raises(TrainerLost, match="finds no GPU here; areal-real check says"):
                await world.start(small.write_config(tmp_path / "model"))

        asyncio.run(start())

    def test_too_slow(self, tmp_path: Path) -> None:
        pids: list[int] = []

        async def noted(settings: TrainerSettings, contact: Contact, log: Path) -> LocalRanks:
            ranks = await start_ranks(settings, contact, log)
            pids.extend(ranks.pids)
            return ranks

        async def start() -> None:
            settings = TrainerSettings(**{**small.ONE_STEP, "start_timeout_s": 1.0})
            world = TrainerWorld(settings, log=tmp_path / "log", start=noted)
            with pytest.raises(TrainerLost, match="not ready after 1 s"):
                await world.start(small.write_config(tmp_path / "model"))

        asyncio.run(start())
        assert len(pids) == 1
        assert gone(pids[0])

    def test_processes_that_cannot_be_started_are_a_lost_trainer(self, tmp_path: Path) -> None:
        """As where a node is lost with its actors just then: a run tries again."""

        async def lost(settings: TrainerSettings, contact: Contact, log: Path) -> LocalRanks:
            raise BackendError("ActorDiedError: its node is gone")

        async def start() -> None:
            world = TrainerWorld(SETTINGS, log=tmp_path / "log", start=lost)
            with pytest.raises(TrainerLost, match="its node is gone"):
                await world.start(tmp_path)

        asyncio.run(start())

    @pytest.mark.parametrize("knows", [False, True])
    def test_who_connects_when_it_is_over_is_not_left_open(
        self, tmp_path: Path, knows: bool
    ) -> None:
        """A process may connect just when its run gives it up, or before it says who it is."""

        async def connect() -> None:
            world = TrainerWorld(SETTINGS, log=tmp_path / "log")
            world._connected = asyncio.get_running_loop().create_future()
            async with await asyncio.start_server(world._accept, "127.0.0.1", 0) as server:
                address = server.sockets[0].getsockname()
                reader, writer = await asyncio.open_connection(*address)
                await asyncio.sleep(0.05)
                world._stopping = True
                if knows:
                    writer.write(json.dumps({"token": world._token}).encode() + b"\n")
                    async with asyncio.timeout(DEAD_S):
                        assert await reader.read() == b"", "closed by the other end"
                writer.close()
                await writer.wait_closed()
                assert not world._connected.done()

        asyncio.run(connect())
        gc.collect()  # a transport left open would be an error here

    def test_given_up(self, tmp_path: Path) -> None:
        async def start() -> TrainerWorld:
            world = TrainerWorld(TWO_SETTINGS, log=tmp_path / "log")
            starting = asyncio.create_task(world.start(small.write_config(tmp_path / "model")))
            while not world.pids:
                await asyncio.sleep(0.05)
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            with pytest.raises(TrainerLost):
                await world.export(tmp_path / "never")
            return world

        world = asyncio.run(start())
        assert all(gone(pid) for pid in world.pids)

    def test_processes_that_die_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "torch.py").write_text("raise SystemExit('no torch here')\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

        async def start() -> None:
            world = TrainerWorld(SETTINGS, log=tmp_path / "log")
            with pytest.raises(TrainerLost, match=r"status 1(.|\n)*no torch here"):
                await world.start(small.write_config(tmp_path / "model"))

        asyncio.run(start())


class TestEnding:
    """Each with a world of two processes of its own."""

    def test_a_killed_process_is_noticed_in_the_middle_of_a_step(self, tmp_path: Path) -> None:
        async def go() -> TrainerWorld:
            world, batch = await _two(tmp_path)
            await world.save(tmp_path / "checkpoint")
            step = asyncio.create_task(world.train(1, batch))
            await asyncio.sleep(0.05)
            assert not step.done()
            os.kill(world.pids[1], signal.SIGKILL)
            with pytest.raises(TrainerLost, match="the trainer ended") as lost:
                await step
            assert "its rank 1 was killed by signal 9" in str(lost.value)
            assert isinstance(await world.lost, TrainerLost)
            with pytest.raises(TrainerLost):
                await world.export(tmp_path / "never")
            await world.stop()
            assert not (tmp_path / "never").exists()
            return world

        world = asyncio.run(go())
        assert all(gone(pid) for pid in world.pids)

    def test_stopped_in_the_middle_of_a_step(self, tmp_path: Path) -> None:
        async def go() -> TrainerWorld:
            world, batch = await _two(tmp_path)
            step = asyncio.create_task(world.train(1, batch))
            await asyncio.sleep(0.05)
            await world.stop()
            with pytest.raises(TrainerLost, match="stopped"):
                await step
            assert not world.lost.done()
            await world.stop()
            return world

        world = asyncio.run(go())
        assert all(gone(pid) for pid in world.pids)

    def test_nobody_without_the_secret_is_heard_and_processes_die_with_the_run(
        self, tmp_path: Path
    ) -> None:
        run = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("lonely_run.py")), str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(small.ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert run.stdout is not None
        told = json.loads(run.stdout.readline())
        try:
            environment = Path(f"/proc/{told['pids'][0]}/environ").read_text()
            assert PORT_VARIABLE in environment
            assert not any(gone_now(pid) for pid in told["pids"])
        finally:
            run.kill()
            run.wait()
            run.stdout.close()
        assert all(gone(pid) for pid in told["pids"])
        assert told["refused"], "a stranger was listened to"


def gone_now(pid: int) -> bool:
    """Whether there is no such process."""
    return not Path(f"/proc/{pid}").exists()


async def _two(folder: Path) -> tuple[TrainerWorld, Path]:
    """A world of two, and a batch that takes it a while."""
    world = TrainerWorld(TWO_SETTINGS, log=folder / "log")
    await world.start(small.write_config(folder / "model"))
    batch = folder / "batch.safetensors"
    small.batch(sequences=600).save(batch)
    return world, batch
