"""Processes of a run as actors of a Ray cluster.

Every server is in a placement group of its own, and all processes of a trainer are in one, as close
together as there is room. A lost node takes its actors with it; Ray finds the placement group
another place when there is one, and the run starts the process again there.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from areal_real.config import RealConfig
from areal_real.errors import BackendError
from areal_real.folder import RunFolder
from areal_real.placement.actors import (
    Resources,
    answer,
    clock_ahead_ns,
    end_actor,
    new_actor,
    new_group,
    remove_group,
)
from areal_real.placement.node_side import RankActor, ServerActor, Site, source_sha256
from areal_real.placement.roles import (
    LOOPBACK,
    Contact,
    Ending,
    Note,
    StartRanks,
    StartServer,
    first_to_blame,
    how_it_ended,
    rank_log,
)
from areal_real.serving.errors import ServerStartFailed
from areal_real.serving.options import ServerOptions
from areal_real.serving.steps import Message, on_our_clock
from areal_real.training.settings import TrainerSettings

TRAINER = "the trainer"
"""For messages."""

LOOK_S = 0.2
"""How often an actor is asked after its process, and a placement group after its state."""

ANSWER_S = 30.0
"""An actor that does not answer for so long is taken for lost."""

TELL_AFTER_S = 5.0
"""Whoever waits for room so long is told of it; the trainer asks for room each time."""

END_S = 10.0
"""What is ended may take so long to be gone."""


class RayServer:
    """A server that an actor holds; a `areal_real.placement.roles.ServerHandle`."""

    def __init__(self, actor: Any, told: Mapping[str, Any], clock_ahead_ns: int) -> None:
        self._actor = actor
        self.url: str = told["url"]
        self.pid: int = told["pid"]
        self.node: str = told["node"]
        self.ending = "is running"
        self._ahead_ns = clock_ahead_ns
        self.received: deque[Message] = deque()
        self._watching: asyncio.Task[None] | None = asyncio.create_task(self._watch())

    @property
    def alive(self) -> bool:
        """Whether its process runs, as far as is known."""
        return self._watching is not None and not self._watching.done()

    def listen(self) -> RayServer:
        """Hear of its engine's steps."""
        return self

    def close(self) -> None:
        """Listen no more."""
        self.received.clear()

    async def _watch(self) -> None:
        try:
            while True:
                async with asyncio.timeout(ANSWER_S):
                    ending, told = await self._actor.look.remote()
                self.received += (on_our_clock(x, self._ahead_ns) for x in told)
                if ending is not None:
                    self.ending = ending
                    return
                await asyncio.sleep(LOOK_S)
        except Exception as exc:
            self.ending = f"was lost with its actor on {self.node} ({type(exc).__name__})"

    async def stop(self) -> None:
        """End it in good order; may be called again."""
        await self._end("stop")

    async def bury(self) -> None:
        """End it at once; may be called again."""
        await self._end("kill")

    async def _end(self, how: str) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
            await end_actor(self._actor, how)


class RayRanks:
    """A trainer's processes, an actor each; a `areal_real.placement.roles.RankProcesses`."""

    def __init__(
        self, actors: Sequence[Any], logs: Sequence[Path], give_back: Callable[[], None]
    ) -> None:
        self._actors = actors
        self._logs = logs
        self._give_back = give_back
        self._ends: list[asyncio.Task[tuple[bool, str]]] = []
        self.clock_ahead_ns = 0

    async def start(self, settings: TrainerSettings, contact: Contact) -> None:
        """Start the processes."""
        checks = [actor.check.remote() for actor in self._actors]
        await asyncio.gather(*map(answer, checks))
        self.clock_ahead_ns = await clock_ahead_ns(self._actors[0])
        store = await self._actors[0].meet.remote()
        starts = [
            actor.start.remote(settings, contact, rank, store, log)
            for rank, (actor, log) in enumerate(zip(self._actors, self._logs, strict=True))
        ]
        await asyncio.gather(*map(answer, starts))
        self._ends = [asyncio.create_task(self._wait(actor)) for actor in self._actors]

    async def _wait(self, actor: Any) -> tuple[bool, str]:
        """Whether a process was killed, and how it ended, when it has."""
        try:
            while True:
                async with asyncio.timeout(ANSWER_S):
                    status = await actor.look.remote()
                if status is not None:
                    return status < 0, how_it_ended(status)
                await asyncio.sleep(LOOK_S)
        except Exception as exc:
            return True, f"was lost with its actor or node ({type(exc).__name__})"

    async def one_ended(self) -> Ending:
        """Wait until a process has ended; returns the first that did."""
        await asyncio.wait(self._ends, return_when=asyncio.FIRST_COMPLETED)
        return first_to_blame(
            [
                Ending(rank=rank, killed=end.result()[0], how=end.result()[1], log=log)
                for rank, (end, log) in enumerate(zip(self._ends, self._logs, strict=True))
                if end.done()
            ]
        )

    async def all_ended(self) -> None:
        """Wait until none is left."""
        await asyncio.wait(self._ends)

    async def kill(self) -> None:
        """End all at once; returns when they are gone. May be called again."""
        actors, self._actors = self._actors, ()
        await asyncio.gather(*(end_actor(actor, "kill") for actor in actors))
        self._give_back()
        if self._ends:
            await asyncio.wait(self._ends, timeout=END_S)


class RayPlacement:
    """Servers and trainer on the nodes of a cluster; a `areal_real.placement.roles.Placement`.

    Args:
        config: the run's.
        folder: its directory, on a file system that all nodes share.
        note: told where the run waits for room.

    Raises:
        ConfigError: processes would listen on loopback, and the cluster has several machines.
    """

    def __init__(self, config: RealConfig, folder: RunFolder, note: Note) -> None:
        import ray

        self._config = config
        cluster = config.real.listen == "cluster"
        node = str(ray.util.get_node_ip_address())
        self.address = node if cluster else LOOPBACK
        self._site = Site(
            folder=folder.path.resolve(), sha256=source_sha256(), cluster=cluster, address=node
        )
        self._note = note
        self._make_room: Callable[[], None] = lambda: None
        self._groups: dict[int, Any] = {}
        self._wanting: set[int] = set()  # servers that wait for room nobody else needs
        self._trainer: Any = None  # its placement group, once that has its place

    def server(self, server_id: int) -> StartServer:
        """How this server is started."""
        return functools.partial(self._start_server, server_id)

    def trainer(self) -> StartRanks:
        """How the trainer is started."""
        return self._start_ranks

    async def room_for(self, server_id: int) -> None:
        """Return when there is room for one more server, beside the trainer."""
        self._wanting.add(server_id)
        try:
            while True:
                if self._trainer is not None:
                    group = self._group_of(server_id)
                    # Meanwhile the trainer may have taken it away.
                    if await _has_place(group) and self._groups.get(server_id) is group:
                        return
                await asyncio.sleep(LOOK_S)
        finally:
            self._wanting.discard(server_id)

    def release(self, server_id: int) -> None:
        """This server is not started again."""
        if (group := self._groups.pop(server_id, None)) is not None:
            remove_group(group)

    def on_crowded(self, make_room: Callable[[], None]) -> None:
        """Call this where the trainer finds no room."""
        self._make_room = make_room

    def close(self) -> None:
        """Give all room back."""
        for server_id in list(self._groups):
            self.release(server_id)

    # ---- servers -------------------------------------------------------------------------------

    async def _start_server(
        self, server_id: int, options: ServerOptions, model: Path, *, weight_version: int, log: Path
    ) -> RayServer:
        what, patience_s = f"server {server_id}", options.start_timeout_s
        actor = None
        try:
            group = self._group_of(server_id)
            await self._made(group, what, patience_s)
            actor = new_actor(ServerActor, self._site, group, 0, self._server_resources())
            async with asyncio.timeout(patience_s):  # its node may be lost, and no other be there
                await answer(actor.check.remote())
                ahead_ns = await clock_ahead_ns(actor)
            # Absolute paths: the working folder of an actor is its own.
            start = actor.start.remote(options, model.resolve(), weight_version, log.resolve())
            async with asyncio.timeout(patience_s + END_S):
                told = await answer(start)
        except BaseException as exc:
            if actor is not None:
                await end_actor(actor, "kill")
            if isinstance(exc, BackendError | TimeoutError):
                raise ServerStartFailed(
                    f"{what}: {str(exc) or 'no answer from its actor'}"
                ) from exc
            raise
        return RayServer(actor, told, ahead_ns)

    def _group_of(self, server_id: int) -> Any:
        if server_id not in self._groups:
            self._groups[server_id] = new_group([self._server_resources()], f"server-{server_id}")
        return self._groups[server_id]

    def _server_resources(self) -> Resources:
        server = self._config.real.server
        return self._resources(server.tensor_parallel, server.threads)

    def _resources(self, processes: int, threads: int) -> Resources:
        found = {"CPU": float(processes * threads)}
        if self._config.real.device == "cuda":
            found["GPU"] = float(processes)
        return found

    # ---- trainer -------------------------------------------------------------------------------

    async def _start_ranks(
        self, settings: TrainerSettings, contact: Contact, log: Path
    ) -> RayRanks:
        each = self._resources(1, settings.threads)
        count = settings.processes
        patience_s = settings.start_timeout_s
        group = new_group([each] * count, "trainer")
        give_back = functools.partial(self._give_back, group)
        actors: list[Any] = []
        logs = [rank_log(log.resolve(), rank) for rank in range(count)]
        try:
            await self._made(group, TRAINER, patience_s)
            self._trainer = group
            actors += [new_actor(RankActor, self._site, group, rank, each) for rank in range(count)]
            ranks = RayRanks(actors, logs, give_back)
            async with asyncio.timeout(patience_s):
                await ranks.start(settings, contact)
        except BaseException as exc:
            try:
                await asyncio.gather(*(end_actor(actor, "kill") for actor in actors))
            finally:
                give_back()
            if isinstance(exc, TimeoutError):
                raise BackendError(
                    f"the trainer's actors did not answer in {patience_s:g} s"
                ) from exc
            raise
        return ranks

    def _give_back(self, group: Any) -> None:
        """The trainer's processes are gone, and will want room again; may be called again."""
        if group is self._trainer:
            self._trainer = None
            # What becomes free is not for them: a trainer that starts again would find no room.
            for server_id in self._wanting:
                self.release(server_id)
        remove_group(group)

    async def _made(self, group: Any, what: str, patience_s: float) -> None:
        """Wait until a placement group has its place.

        Raises:
            BackendError: it has none in time.
        """
        since_s = time.monotonic()
        asked = 0
        while not await _has_place(group):
            waited_s = time.monotonic() - since_s
            if waited_s > TELL_AFTER_S * (asked + 1):
                if not asked:
                    self._note(f"{what} waits for room: {self._lack(group)}")
                if what == TRAINER:  # a server that gives way may not be enough, or not be up yet
                    self._make_room()
                asked += 1
            if waited_s > patience_s:
                raise BackendError(f"no room for {what}: {self._lack(group)}")
            await asyncio.sleep(LOOK_S)

    def _lack(self, group: Any) -> str:
        """What a placement group asks for, and what the cluster has."""
        import ray

        nodes = sum(node["Alive"] for node in ray.nodes())
        count = f"{nodes} node{'s' if nodes != 1 else ''}"
        has, free = ray.cluster_resources(), ray.available_resources()
        counts = ", ".join(
            f"{free.get(name, 0):g} of {has.get(name, 0):g} {name} free" for name in ("CPU", "GPU")
        )
        asked = " and ".join(
            f"{sum(bundle.get(name, 0) for bundle in group.bundle_specs):g} {name}"
            for name in ("CPU", "GPU")
            if any(bundle.get(name) for bundle in group.bundle_specs)
        )
        return f"it asks for {asked}; the cluster has {count}, {counts}"


async def _has_place(group: Any) -> bool:
    """Whether a placement group has its place."""
    from ray.util import placement_group_table

    table = await asyncio.to_thread(placement_group_table, group)
    return bool(table.get("state") == "CREATED")
