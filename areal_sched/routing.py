"""Choosing the server for a new rollout."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from operator import methodcaller
from typing import TypeAlias

from areal_sched.errors import ConfigError, nearest
from areal_sched.ids import ServerId
from areal_sched.records import Server
from areal_sched.view import ClusterView

Router: TypeAlias = Callable[[ClusterView], ServerId | None]


_ID_BITS = 24  # servers have ids below 16 million
_ID_MASK = (1 << _ID_BITS) - 1


class LoadIndex:
    """The least loaded server in amortised O(log n), without a scan.

    A heap with lazy deletion: every change pushes a new entry, stale ones are dropped when they
    reach the top. A change of load must be reported through `update`. Entries are
    ``load << 24 | server id``: one whole number compares twice as fast as a pair.
    """

    __slots__ = ("_heap", "_keys")

    def __init__(self) -> None:
        self._keys: dict[ServerId, int] = {}
        self._heap: list[int] = []

    def update(self, server_id: ServerId, load: int) -> None:
        """Set a server's load; new servers are added."""
        key = load << _ID_BITS | server_id
        keys, heap = self._keys, self._heap
        keys[server_id] = key
        heappush(heap, key)
        if len(heap) > 64 + 8 * len(keys):
            # Stale entries pile up below the top when one server stays least loaded for long.
            heap[:] = keys.values()
            heapify(heap)

    def remove(self, server_id: ServerId) -> None:
        """Forget a server."""
        del self._keys[server_id]

    def least(self) -> ServerId | None:
        """The server of least load, lowest id first; None if there is none."""
        heap = self._heap
        keys = self._keys
        while heap:
            key = heap[0]
            # No ServerId(...): a call for nothing, once a trajectory.
            server_id: ServerId = key & _ID_MASK  # type: ignore[assignment]
            if keys.get(server_id) == key:
                return server_id
            heappop(heap)
        return None


class CountIndex:
    """A `LoadIndex` for loads that are small counts: no search at all.

    For each load one whole number whose bit i is set where server i has it; the lowest bit of the
    lowest number that is not zero is the answer. A count changes by one where a rollout comes or
    goes, so the lowest is found at once.
    """

    __slots__ = ("_least", "_loads", "_servers")

    def __init__(self) -> None:
        self._loads: dict[ServerId, int] = {}
        self._servers: list[int] = [0]  # by load
        self._least = 0  # no server has less

    def update(self, server_id: ServerId, load: int) -> None:
        """Set a server's load; new servers are added."""
        loads, servers = self._loads, self._servers
        bit = 1 << server_id
        if server_id in loads:
            servers[loads[server_id]] ^= bit
        loads[server_id] = load
        if load < self._least:
            self._least = load
        elif load >= len(servers):
            servers += [0] * (load + 1 - len(servers))
        servers[load] |= bit

    def remove(self, server_id: ServerId) -> None:
        """Forget a server."""
        self._servers[self._loads.pop(server_id)] ^= 1 << server_id

    def least(self) -> ServerId | None:
        """The server of least load, lowest id first; None if there is none."""
        if not self._loads:
            return None
        servers = self._servers
        least = self._least
        while not servers[least]:
            least += 1
        self._least = least
        having = servers[least]
        # No ServerId(...): a call for nothing, once a trajectory.
        return (having & -having).bit_length() - 1  # type: ignore[return-value]


class RoundRobin:
    """Servers in turn, by id, skipping lost ones.

    Args:
        spare_loading: skip servers that are loading weights too, unless all are.
    """

    def __init__(self, *, spare_loading: bool = False) -> None:
        self._last = -1
        self._spare_loading = spare_loading

    def __call__(self, view: ClusterView) -> ServerId | None:
        """The next server, or None without servers."""
        ids = sorted(view.servers)
        if self._spare_loading:
            ids = [i for i in ids if view.servers[i].loading is None] or ids
        if not ids:
            return None
        self._last = next((i for i in ids if i > self._last), ids[0])
        return ServerId(self._last)


class Sparing:
    """The least loaded server among those that are not loading weights, or else among all.

    Args:
        route: the least loaded among all, lowest id first.
        load: of a server; `route` goes by the same.
    """

    def __init__(self, route: Router, load: Callable[[Server], int]) -> None:
        self._route = route
        self._load = load

    def __call__(self, view: ClusterView) -> ServerId | None:
        """That server, or None without servers."""
        server_id = self._route(view)
        if server_id is None or view.servers[server_id].loading is None:
            return server_id
        free = [
            (self._load(server), server.server_id)
            for server in view.servers.values()
            if server.loading is None
        ]
        return min(free)[1] if free else server_id


def router(name: str, *, spare_loading: bool = False) -> Router:
    """Return the router of that name: ``least_loaded``, ``round_robin`` or ``least_kv``.

    Args:
        name: of the router.
        spare_loading: choose among servers that are not loading weights, if there are any. What is
            sent to one that loads has to wait, and with few rollouts left it looks least loaded.

    Raises:
        ConfigError: there is no such router.
    """
    if name == "least_loaded":
        route: Router = methodcaller("least_loaded")
        return Sparing(route, lambda server: len(server.rollouts)) if spare_loading else route
    if name == "least_kv":
        route = methodcaller("least_kv")
        return Sparing(route, lambda server: server.known_kv_tokens) if spare_loading else route
    if name == "round_robin":
        return RoundRobin(spare_loading=spare_loading)
    known = ("least_loaded", "least_kv", "round_robin")
    raise ConfigError(f"scheduler.routing = {name!r}{nearest(name, known)}")
