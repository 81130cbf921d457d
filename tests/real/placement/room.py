"""Run as a script: who gets the room that a trainer leaves behind; what it saw, as a line of JSON.

On a Ray of our own with one processor for the trainer, and none for the server that waits.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

from areal_real.backend import trainer_settings
from areal_real.config import load_config
from areal_real.folder import RunFolder
from areal_real.placement import join
from areal_real.placement.on_ray import RayPlacement
from areal_real.placement.roles import Contact

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "configs" / "real" / "tiny-cpu.toml"
PATIENCE_S = 20.0


async def main(folder: Path) -> dict[str, object]:
    """Lose a trainer while a server waits for room, and start it again."""
    (folder / "config.toml").touch()
    values = [f"real.trainer.start_timeout_s={PATIENCE_S}", "real.server.max_count=2"]
    config = load_config(CONFIG, values)
    settings = trainer_settings(config)
    asked: list[float] = []
    placement = RayPlacement(config, RunFolder(folder), lambda text: None)
    placement.on_crowded(lambda: asked.append(time.monotonic()))

    async def nobody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with await asyncio.start_server(nobody, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        contact = Contact(host="127.0.0.1", port=port, token="token")
        start = placement.trainer()
        before = await start(settings, contact, folder / "trainer.log")
        waiting = asyncio.create_task(placement.room_for(1))
        await asyncio.sleep(2)
        found: dict[str, object] = {"at once": waiting.done()}
        await before.kill()
        # A moment in which what has become free could go to whoever waited longer.
        await asyncio.sleep(2)
        since_s = time.monotonic()
        again = await start(settings, contact, folder / "trainer.log")
        found["trainer waited"] = time.monotonic() - since_s
        found["taken"] = waiting.done()
        await again.kill()
        waiting.cancel()
        # Room that is held by a server: the trainer asks for it, more than once.
        await placement._made(placement._group_of(0), "server 0", PATIENCE_S)
        starting = asyncio.create_task(start(settings, contact, folder / "trainer.log"))
        while len(asked) < 2:
            await asyncio.sleep(0.1)
        placement.release(0)
        last = await starting
        await last.kill()
        found["asked"] = len(asked)
    placement.close()
    return found


if __name__ == "__main__":
    tempfile.tempdir = tempfile.mkdtemp(prefix="r-")
    join._threads = lambda config: 1  # not that of a server too
    with join.joined("local", load_config(CONFIG)):
        print(json.dumps(asyncio.run(main(Path(sys.argv[1])))))
