"""A simulated server that hangs: it takes everything and does nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from areal_sched.commands import UpdateMode
from areal_sched.ids import WeightVersion
from areal_sim.engine import Request
from areal_sim.server import Server


class HungServer(Server):
    """Stands in for a server until its loss is found out.

    Its GPUs count as down, since that is what they are. A colocated trainer that asks for them
    waits until the loss is found.

    Args:
        server: the one that hangs, all it had lost.
    """

    def __init__(self, server: Server) -> None:
        # Not that of `Server`: it has no engine that works, no alarm and no spans of its own.
        self.server = server
        self.server_id = server.server_id
        self.weight_version = server.weight_version
        self.engine = server.engine
        self.alive = True  # as far as anybody knows

    def submit_all(self, requests: Iterable[Request]) -> None:
        """Nothing comes of it."""

    def load(self, version: WeightVersion, mode: UpdateMode) -> None:
        """Nothing comes of it."""

    def remove(self, rollout_ids: set[int], reason: str | None) -> None:
        """Nothing comes of it."""

    def lend(self, lent: Callable[[], None]) -> None:
        """Nothing comes of it."""

    def give_back(self) -> None:
        """It had nothing."""

    def slow_down(self, factor: float) -> None:
        """It will be so slow when it is back."""
        self.server.slow_down(factor)

    def close(self) -> None:
        """The run ends."""
        self.server.close()

    @property
    def preemptions(self) -> int:
        """Of the server."""
        return self.server.preemptions
