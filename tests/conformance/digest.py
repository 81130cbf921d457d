"""Prints one line per built-in scheduler: its name and the hash of a seeded run's journal."""

from __future__ import annotations

import io

from areal_sched import JournalWriter, Limits, built_in, load
from benchmarks.variations import accepted
from tests.conformance.choices import Choices, Temper
from tests.conformance.drive import drive


def digest(path: str) -> str:
    """The journal's hash of one run full of faults."""
    limits = Limits(
        train_batch_rollouts=6, group_size=2, eta=2, max_lag=2, max_rollouts_in_flight=18
    )
    limits = accepted(path, limits)
    writer = JournalWriter(io.BytesIO(), {"scheduler": path, "seed": 5})
    drive(
        load(path, limits),
        limits,
        Temper(servers=3, fault_rate=20, slow=frozenset({"load"})),
        Choices.seeded(5, 3000),
        calm_steps=2,
        record=writer.record,
    )
    writer.close()
    return writer.sha256


def main() -> None:
    """Print the hashes."""
    for path in built_in():
        print(path, digest(path))


if __name__ == "__main__":
    main()
