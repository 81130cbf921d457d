"""Prints one line per built-in scheduler: its name and the hash of a simulated run's journal."""

from __future__ import annotations

import hashlib

from areal_sched import Limits, built_in
from areal_sim.faults import Faults
from benchmarks.variations import accepted
from tests.sim.worlds import US, World, live_through

LIMITS = Limits(train_batch_rollouts=6, group_size=2, eta=2, max_lag=3, max_rollouts_in_flight=14)


def busy_world(path: str, seed: int = 1) -> World:
    """Something of everything: losses, stragglers, preemption, random rewards, many updates."""
    return World(
        path=path,
        limits=accepted(path, LIMITS),
        options={},
        steps=12,
        servers=3,
        colocated=False,
        tokens=40,
        spread=True,
        prompt_tokens=5,
        max_running=4,
        rooms=2,
        chunk=16,
        server_fs=(1_234_567_891, 98_765_432, 1_234_567, 999_999_999, 12_345_678, 777),
        trainer_s=(20 * US, 2 * US, 3 * US, 0.0, 20 * US),
        reward=(3, 2 * US, 1.0),
        faults=Faults(
            server_mean_time_between_failures_s=400 * US,
            server_repair_s=50 * US,
            straggler_share=0.34,
            straggler_slowdown=2.0,
            slow_network_factor=2.0,
        ),
        actions=(),
        seed=seed,
    )


def digest(path: str, seed: int = 1) -> str:
    """The hash of the journal's bytes, compressed as they are."""
    return hashlib.sha256(live_through(busy_world(path, seed)).journal).hexdigest()


def main() -> None:
    """Print the hashes."""
    for path in built_in():
        print(path, digest(path))


if __name__ == "__main__":
    main()
