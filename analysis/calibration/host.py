"""How servers and trainer share the processors of one machine.

The trainer wants a processor for each of its threads. What servers want follows from how much
slower their engines are while the trainer works: what the trainer leaves is 1 / (1 + slowdown) of
it, and it is no more than there is.
The trainer itself runs at the speed of processor sharing: processors there are, over all that are
wanted. (That servers lose more than it does is what is seen, and what a scheduler does that favours
a process which has slept.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LEAST_LEFT = 0.1
"""This share of the processors the servers get in any case: no process is starved."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Processors there are, and what one server and the trainer want of them while they work."""

    cores: float
    server_cores: float
    trainer_cores: float

    def trainer_slowdown(self, servers: int) -> float:
        """By so many servers at work, at least 0."""
        wanted = servers * self.server_cores + self.trainer_cores
        return max(0.0, wanted / self.cores - 1)


def demand_of(layout: Mapping[str, Any], servers: int, slowdown: float) -> Demand | None:
    """What is wanted; None where servers and trainer do not share processors.

    Args:
        layout: of the journal's header.
        servers: that worked at a time.
        slowdown: of a server by the trainer.
    """
    cores = layout["host_cores"]
    if cores is None or slowdown == 0:
        return None
    ranks = layout["data_parallel"] * layout["pipeline_parallel"] * layout["tensor_parallel"]
    trainer = min(float(ranks * layout["trainer_threads"]), (1 - LEAST_LEFT) * cores)
    wanted = min((cores - trainer) * (1 + slowdown), float(cores))
    return Demand(float(cores), wanted / servers, trainer)
