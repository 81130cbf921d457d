"""Run as a script: a run that starts a trainer, tells its process ids, and waits to be killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path

from areal_real.training.settings import TrainerSettings
from areal_real.training.world import TrainerWorld
from tests.real.training import small


class Watched(TrainerWorld):
    """A world whose port a stranger tries first."""

    refused = False

    async def _launch(self, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(json.dumps({"token": "guessed"}).encode() + b"\n")
        self.refused = await reader.read() == b""
        writer.close()
        await super()._launch(port)


async def main(folder: Path) -> None:
    """Start, tell, wait."""
    settings = TrainerSettings(**{**small.ONE_STEP, "data_parallel": 2})
    world = Watched(settings, log=folder / "log")
    await world.start(small.write_config(folder / "model"))
    pids = [*world.pids, world.agent_pid]
    print(json.dumps({"pids": pids, "refused": world.refused}), flush=True)
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
