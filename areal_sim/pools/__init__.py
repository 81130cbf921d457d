"""Where the simulations of a sweep are carried out: processes of this machine, or a Ray cluster.

A pool is one method, `Pool.run`: it takes all tasks and hands back each summary as it comes. What
was simulated before, and where results are kept, is not its business; that is `areal_sim.sweep`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from areal_sched.errors import ArealError, ConfigError
from areal_sim.config import RunConfig

Summary = dict[str, Any]
"""What `analysis.summary.summarise` gives, but for the journal's hash, which tells of the name."""


class SweepError(ArealError):
    """A sweep stopped for another reason than a configuration; what was finished is kept."""


class NoPool(SweepError, ConfigError):
    """The pool that was asked for cannot be had: not installed, or nothing there to be reached."""


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """One simulation: the run's name, which is its own among the tasks, and its configuration."""

    name: str
    config: RunConfig


class Pool(Protocol):
    """Carries out simulations, several at a time."""

    def run(self, tasks: Sequence[Task], keep: Callable[[str, Summary], None]) -> None:
        """Simulate all tasks.

        Args:
            tasks: what to simulate; begun in this order.
            keep: called in this thread with the name and summary of each as it is finished. A call
                that Ctrl-C cut short may come again.

        Raises:
            ConfigError: a configuration cannot be simulated, or (`NoPool`) there is no such pool.
            SweepError: a process was lost.
            KeyboardInterrupt: as of Ctrl-C. Whatever is raised, what was finished by then has been
                kept, and what was not has been ended.
        """
