"""Requests of an inference trace through simulated servers alone: no scheduler, no trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from areal_sched.events import Event
from areal_sched.ids import ServerId, WeightVersion
from areal_sched.measurements import ServerSpan
from areal_sched.routing import LoadIndex
from areal_sim.alarm import Alarm
from areal_sim.clock import Clock
from areal_sim.engine import Engine, Request
from areal_sim.server import Server
from areal_sim.simulation import Setup


@dataclass(frozen=True, slots=True)
class Served:
    """What became of the requests.

    Attributes:
        arrival_ns, finish_ns: per request, shape (requests,).
        response_tokens: per request, shape (requests,).
        busy_ns: time servers were generating, summed over them.
        preemptions: requests whose KV cache had to make room, and was computed again.
        servers: how many there were.
    """

    arrival_ns: NDArray[np.int64]
    finish_ns: NDArray[np.int64]
    response_tokens: NDArray[np.int64]
    busy_ns: int
    preemptions: int
    servers: int

    @property
    def makespan_ns(self) -> int:
        """From the first arrival to the last finish."""
        return int(self.finish_ns.max() - self.arrival_ns.min())

    @property
    def latency_s(self) -> NDArray[np.float64]:
        """From arrival to last token, per request."""
        return (self.finish_ns - self.arrival_ns) / 1e9


class _Host:
    """Takes finished requests and keeps servers going; there are no other events."""

    def __init__(self, env: Clock, count: int) -> None:
        self._env = env
        self.finish_ns = np.full(count, -1, np.int64)
        self.busy_ns = 0
        self.load = LoadIndex()
        self._on: dict[int, int] = {}
        self._touched: list[Server] = []

    def send(self, request: Request, servers: Sequence[Server]) -> None:
        """Submit to the server with the fewest requests."""
        number = self.load.least()
        assert number is not None
        self._change(servers[number], +1)
        servers[number].submit(request)

    def _change(self, server: Server, by: int) -> None:
        self._on[server.server_id] = self._on.get(server.server_id, 0) + by
        self.load.update(server.server_id, self._on[server.server_id])

    def emit(self, event: Event) -> None:
        """Servers report nothing here but finished requests."""
        raise AssertionError(event)

    def finished(self, request: Request, server: Server) -> None:
        """Note when."""
        self.finish_ns[request.rollout_id] = self._env.now
        self._change(server, -1)

    def touched(self, server: Server) -> None:
        """Settle at the end of the instant."""
        self._touched.append(server)

    def measure(self, span: ServerSpan) -> None:
        """Add up the busy time."""
        if span.activity == "generate":
            self.busy_ns += span.end_ns - span.start_ns

    def end_instant(self) -> None:
        """Let the touched servers go on."""
        while self._touched:
            self._touched.pop().settle()


def serve(
    setup: Setup,
    arrival_ns: NDArray[np.int64],
    prompt_tokens: NDArray[np.int64],
    response_tokens: NDArray[np.int64],
) -> Served:
    """Send requests, each to the server with the fewest, and wait for the last.

    Args:
        setup: its servers, their costs and capacities are used.
        arrival_ns: when each request arrives, shape (requests,), from 0, in ascending order.
        prompt_tokens: shape (requests,).
        response_tokens: shape (requests,); at least 1.

    Raises:
        ValueError: a request does not fit into a server's KV cache or asks for no tokens, or
            arrivals are negative or in the wrong order.
    """
    count = len(arrival_ns)
    if count == 0:
        raise ValueError("there are no requests")
    if np.any(np.diff(arrival_ns) < 0):
        raise ValueError("arrivals must be in ascending order")
    if arrival_ns[0] < 0:
        raise ValueError(f"an arrival at {arrival_ns[0]} ns is negative")
    env = Clock()
    host = _Host(env, count)
    cost = setup.costs.server()

    def new_engine() -> Engine:
        return Engine(
            cost,
            max_running_rollouts=setup.max_running_rollouts,
            kv_cache_tokens=setup.kv_cache_tokens,
            prefill_chunk_tokens=setup.prefill_chunk_tokens,
            kv_reserve_tokens=setup.kv_reserve_tokens,
        )

    servers = [
        Server(env, ServerId(n), host, new_engine, lambda: 0, WeightVersion(0))
        for n in range(setup.servers)
    ]
    for server in servers:
        host.load.update(server.server_id, 0)
    requests = [
        Request(number, prompt, response)
        for number, (prompt, response) in enumerate(
            zip(prompt_tokens.tolist(), response_tokens.tolist(), strict=True)
        )
    ]
    times = arrival_ns.tolist()
    position = 0

    def arrive() -> None:
        nonlocal position
        while position < count and times[position] <= env.now:
            host.send(requests[position], servers)
            position += 1
        host.end_instant()
        if position < count:
            alarm.at(times[position])

    alarm = Alarm(env, arrive)
    alarm.at(times[0])
    env.run()
    for server in servers:
        server.close()
    if int(host.finish_ns.min()) < 0:
        raise AssertionError("a request was lost")
    return Served(
        arrival_ns=arrival_ns,
        finish_ns=host.finish_ns,
        response_tokens=response_tokens,
        busy_ns=host.busy_ns,
        preemptions=sum(server.preemptions for server in servers),
        servers=len(servers),
    )
