"""Run as a script: what actors and placement say where a cluster does not fit; a line each."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import tempfile
from pathlib import Path

import ray

from areal_real.backend import server_options
from areal_real.config import load_config
from areal_real.errors import BackendError
from areal_real.folder import RunFolder
from areal_real.placement.actors import answer, new_actor, new_group, remove_group
from areal_real.placement.join import joined
from areal_real.placement.node_side import ServerActor, Site, source_sha256
from areal_real.placement.on_ray import RayPlacement

CONFIG = Path(__file__).parents[3] / "configs" / "real" / "tiny-cpu.toml"


async def main(folder: Path) -> None:
    """Ask, and print the answers."""
    node = str(ray.util.get_node_ip_address())
    nowhere, sha256 = folder / "nowhere", source_sha256()
    site = Site(folder=nowhere, sha256=sha256, cluster=False, address=node)
    there = folder / "run"
    there.mkdir()
    (there / "config.toml").touch()
    stale = dataclasses.replace(site, folder=there, sha256="0" * 64)
    elsewhere = dataclasses.replace(site, address="192.0.2.1")
    one = {"CPU": 1.0}
    for told in (site, stale, elsewhere):
        group = new_group([one], "test")
        actor = new_actor(ServerActor, told, group, 0, one)
        try:
            await answer(actor.check.remote())
        except BackendError as exc:
            print(str(exc).replace("\n", " "))
        remove_group(group)  # there is not room for all of them
    config = load_config(CONFIG, ["real.server.threads=64"])
    placement = RayPlacement(config, RunFolder(there), lambda text: None)
    options = dataclasses.replace(server_options(config, 0, "token"), start_timeout_s=1.0)
    try:
        await placement.server(0)(options, folder, weight_version=0, log=folder / "log")
    except BackendError as exc:
        print(exc)
    placement.close()


if __name__ == "__main__":
    tempfile.tempdir = tempfile.mkdtemp(prefix="r-")
    with joined("local", load_config(CONFIG)):
        asyncio.run(main(Path(sys.argv[1])))
