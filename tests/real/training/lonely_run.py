"""Run as a script: a run that starts a trainer, tells its process ids, and waits to be killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path

from areal_real.placement.local import LocalRanks, start_ranks
from areal_real.placement.roles import Contact
from areal_real.training.settings import TrainerSettings
from areal_real.training.world import TrainerWorld
from tests.real.training import small

refused: list[bool] = []


async def start(settings: TrainerSettings, contact: Contact, log: Path) -> LocalRanks:
    """Start a trainer's processes, after a stranger has tried the run's port."""
    for guess in (json.dumps({"token": "guessed"}).encode() + b"\n", b"x" * 2**20, b"{}\n"):
        reader, writer = await asyncio.open_connection(contact.host, contact.port)
        writer.write(guess)
        with contextlib.suppress(ConnectionError):
            refused.append(await reader.read() == b"")
        writer.close()
    return await start_ranks(settings, contact, log)


async def main(folder: Path) -> None:
    """Start, tell, wait."""
    settings = TrainerSettings(**{**small.ONE_STEP, "data_parallel": 2})
    world = TrainerWorld(settings, log=folder / "log", start=start)
    await world.start(small.write_config(folder / "model"))
    print(json.dumps({"pids": world.pids, "refused": all(refused)}), flush=True)
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
