"""Seeded faults: servers that die and come back, stragglers, a slow network."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from areal_sched.ids import ServerId
from areal_sim.clock import Clock
from areal_sim.config.fault_schedule import ScheduledFault
from areal_sim.executor import SimExecutor

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong, drawn from the run's seed.

    Attributes:
        server_mean_time_between_failures_s: mean of an exponential time to a server's loss, each
            server for itself; None means never.
        server_repair_s: from a loss to the return.
        straggler_share: share of the servers, rounded, that are slow for the whole run.
        straggler_slowdown: their steps take so many times as long.
        slow_network_factor: weight loads take so many times as long.
        schedule: faults at given times, beside those drawn; see `areal_sim.fault_schedule`.
    """

    server_mean_time_between_failures_s: float | None = None
    server_repair_s: float = 300.0
    straggler_share: float = 0.0
    straggler_slowdown: float = 1.0
    slow_network_factor: float = 1.0
    schedule: tuple[ScheduledFault, ...] = ()


def stragglers(faults: Faults, servers: int, seed: int) -> frozenset[int]:
    """Numbers of the servers that are slow."""
    count = round(faults.straggler_share * servers)
    rng = np.random.Generator(np.random.Philox(key=[seed, 1]))
    return frozenset(rng.permutation(servers)[:count].tolist())


def start_losses(
    env: Clock, executor: SimExecutor, faults: Faults, servers: int, seed: int
) -> None:
    """Let servers die and return, each from a random stream of its own."""
    mean_s = faults.server_mean_time_between_failures_s
    if mean_s is None:
        return
    for number in range(servers):
        rng = np.random.Generator(np.random.Philox(key=[seed, 2], counter=[0, 0, 0, number]))
        env.process(_losses(env, executor, ServerId(number), rng, mean_s, faults.server_repair_s))


def _losses(
    env: Clock,
    executor: SimExecutor,
    server_id: ServerId,
    rng: np.random.Generator,
    mean_s: float,
    repair_s: float,
) -> Generator[Any, Any, None]:
    while True:
        yield env.timeout(max(1, round(rng.exponential(mean_s) * NS_PER_S)))
        if server_id in executor.gone:
            return
        if not executor.is_up(server_id):
            continue  # lost by the schedule, which lets it return
        executor.lose_server(server_id)
        yield env.timeout(max(1, round(repair_s * NS_PER_S)))
        executor.return_server(server_id)
