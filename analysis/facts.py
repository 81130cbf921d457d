"""The facts of a run that a journal's header states."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from analysis.errors import AnalysisError
from analysis.power import Power

_COUNTS = (
    "gpus",
    "generation_gpus",
    "gpus_per_server",
    "servers",
    "training_gpus",
    "unused_gpus",
    "group_size",
    "train_batch_rollouts",
    "steps",
    "seed",
)

_PROPER_NAMES = {"Areal": "AReaL"}
"""Scheduler classes whose name is spelt otherwise than a class name can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What analysis knows of a run before its first event.

    Attributes:
        name: the run's name, shown in titles.
        scheduler: import path of the scheduler class.
        gpus: all GPUs of the cluster.
        generation_gpus: GPUs given to generation; ``servers * gpus_per_server`` are used.
        gpus_per_server: GPUs of one inference server.
        servers: inference servers alive at a time when none is down.
        training_gpus: GPUs of the trainer.
        colocated: generation and training share their GPUs and take turns.
        unused_gpus: GPUs neither has, for the record; accounts work it out.
        group_size, train_batch_rollouts: as in `areal_sched.Limits`.
        steps: training steps asked for.
        seed, config_sha256: what identifies the configuration.
        published: published numbers of the same run, if there are any.
        power: what one GPU draws and costs; None where the header does not say.
        options, limits: the scheduler's options and limits, as configured.

    Raises:
        AnalysisError: the GPUs do not add up, or a count is negative; the message names it.
    """

    name: str
    gpus: int
    generation_gpus: int
    gpus_per_server: int
    servers: int
    training_gpus: int
    colocated: bool
    unused_gpus: int
    group_size: int
    train_batch_rollouts: int
    steps: int
    seed: int
    config_sha256: str
    published: Mapping[str, Any] | None = None
    power: Power | None = None
    scheduler: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what accounts rely on."""
        for name in _COUNTS:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise AnalysisError(f"run.{name} = {value!r}: expected a whole number >= 0")
        if self.server_gpus > self.generation_gpus:
            raise AnalysisError(
                f"run.servers = {self.servers} of {self.gpus_per_server} GPUs do not fit into "
                f"run.generation_gpus = {self.generation_gpus}"
            )
        if self.colocated:
            needed = max(self.generation_gpus, self.training_gpus)
        else:
            needed = self.generation_gpus + self.training_gpus
        if needed > self.gpus:
            raise AnalysisError(f"run.gpus = {self.gpus}: generation and training need {needed}")

    @property
    def server_gpus(self) -> int:
        """GPUs that servers occupy when none is down."""
        return self.servers * self.gpus_per_server

    @property
    def scheduler_name(self) -> str:
        """The scheduler's name for titles."""
        return scheduler_title(self.scheduler)

    @classmethod
    def from_header(cls, header: Mapping[str, Any], source: object = "journal") -> RunFacts:
        """Read the facts from a journal's header, or from what is about to become one.

        Args:
            header: with ``run``, and where known ``scheduler``, ``options`` and ``limits``.
            source: what to name in errors, usually the journal's path.

        Raises:
            AnalysisError: the header has no ``run``, or a fact lacks or is wrong.
        """
        run = header.get("run")
        if not isinstance(run, Mapping):
            raise AnalysisError(f"{source}: the header says nothing of the run (no key 'run')")
        names = set(cls.__dataclass_fields__) - {"scheduler", "options", "limits", "power"}
        missing = sorted(names - set(run) - {"published"})
        if missing:
            raise AnalysisError(f"{source}: header: run.{missing[0]} is missing")
        try:
            return cls(
                **{name: run[name] for name in names if name in run},
                power=Power.from_header(run.get("power")),
                scheduler=str(header.get("scheduler", "")),
                options=dict(header.get("options") or {}),
                limits=dict(header.get("limits") or {}),
            )
        except AnalysisError as exc:
            raise AnalysisError(f"{source}: header: {exc}") from None


def scheduler_title(path: str) -> str:
    """A scheduler's name for titles, from its import path: ``m:OneStepOff`` is "One step off"."""
    name = path.rpartition(":")[2].rpartition(".")[2]
    if name in _PROPER_NAMES:
        return _PROPER_NAMES[name]
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^A-Z]+", name)
    return " ".join(words[:1] + [x if x.isupper() else x.lower() for x in words[1:]])
