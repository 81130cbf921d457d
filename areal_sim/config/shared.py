"""The short sections that simulated and real runs share: cluster, model, limits, scheduler."""

# ruff: noqa: RUF009 - these calls make fields, not values

from __future__ import annotations

import dataclasses
import importlib
import math
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from areal_sched.controller import Scheduler
from areal_sched.errors import ConfigError, nearest
from areal_sched.limits import Limits
from areal_sched.load import built_in, load
from areal_sim.config.options import Section, flag, number, path, string, toml_value, whole
from areal_sim.hardware import Cluster, gpu
from areal_sim.models import ALIASES, ModelShape, load_model, model_names

DEFAULT_GENERATION_SHARE = 0.75
"""AReaL paper (arXiv 2505.24298), experiment setup: 75 % of the GPUs generate, 25 % train."""

PAPER_NETWORK_BYTES_PER_S = 400e9
"""Same place: RoCE with 3.2 Tbit/s a node."""

Value: TypeAlias = "str | int | float | bool | tuple[Value, ...]"
"""Of an option of a scheduler."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig(Section):
    """The GPUs that are rented, and who gets them: either `generation_share` or `colocated`."""

    TABLE: ClassVar[str] = "cluster"

    gpu: str = string("GPU model, by the name it has in `areal_sim.hardware`", "H800")
    nodes: int = whole("number of nodes, all alike")
    gpus_per_node: int = whole("GPUs of a node", 8)
    network_bytes_per_s_per_node: float = number(
        "bandwidth between nodes, one direction, whole node",
        PAPER_NETWORK_BYTES_PER_S,
        unit="byte/s",
        above=0,
    )
    generation_share: float | None = number(
        "separate placement: this share of the GPUs generates, the others train",
        None,
        above=0,
        below=1,
        optional=True,
        otherwise=f"`{DEFAULT_GENERATION_SHARE}`, unless `colocated`",
    )
    colocated: bool = flag("all GPUs generate and train in turn", False)

    def _check(self) -> None:
        try:
            self._put("gpu", gpu(self.gpu).name)
        except ConfigError as error:
            raise ConfigError(f"cluster.{error}") from None
        if not self.colocated and self.generation_share is None:
            self._put("generation_share", DEFAULT_GENERATION_SHARE)
        if self.colocated and self.generation_share is not None:
            raise ConfigError(
                f"cluster.generation_share = {self.generation_share!r}: belongs to separate"
                " placement; leave it out, or cluster.colocated = true"
            )

    @property
    def gpus(self) -> int:
        """All GPUs, the ones that are paid for."""
        return self.nodes * self.gpus_per_node

    def hardware(self) -> Cluster:
        """The cluster as the cost models take it."""
        return Cluster(
            gpu=gpu(self.gpu),
            nodes=self.nodes,
            gpus_per_node=self.gpus_per_node,
            network_bytes_per_s_per_node=self.network_bytes_per_s_per_node,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig(Section):
    """The model that is trained and served: either `name` or `config`."""

    TABLE: ClassVar[str] = "model"

    name: str | None = string(
        "a model known to `areal_sim.models`, as `r1-distill-qwen-7b` or `7b`", None, optional=True
    )
    config: Path | None = path("a Hugging Face `config.json`, or the folder it lies in")

    def _check(self) -> None:
        one_of(self.TABLE, {"name": self.name, "config": self.config})
        if self.name is not None:
            folded = self.name.casefold()
            name = ALIASES.get(folded, folded)
            if name not in model_names():
                raise ConfigError(
                    f"model.name = {toml_value(self.name)}: no such model"
                    f"{nearest(folded, {*model_names(), *ALIASES})}"
                )
            self._put("name", name)
        elif self.config is not None and self.config.is_dir():
            self._put("config", self.config / "config.json")

    def shape(self) -> ModelShape:
        """The model's sizes.

        Raises:
            ConfigError: the file cannot be read or is not a supported model.
        """
        if self.config is None:
            return load_model(str(self.name))
        try:
            return ModelShape.from_hf_config(self.config)
        except ConfigError as error:
            raise ConfigError(f"model.config: {error}") from None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig(Section):
    """Bounds that every scheduler has to keep (`areal_sched.limits`)."""

    TABLE: ClassVar[str] = "limits"

    eta: int | None = whole(
        "staleness bound at admission (paper eq. 3)", unit="versions", least=0, unbounded=True
    )
    max_lag: int | None = whole(
        "bound on the lag at consumption", None, unit="versions", least=0, unbounded=True
    )
    max_rollouts_in_flight: int = whole(
        "on servers or waiting to be resumed, over the cluster", 8192, unit="rollouts"
    )
    max_failures_per_group: int = whole(
        "after so many failed rollouts a group is given up", 3, unit="rollouts", least=0
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig(Section):
    """The scheduler. Every key but `class` is an option of it."""

    TABLE: ClassVar[str] = "scheduler"

    class_path: str = string(
        "a built-in scheduler, as `areal`, or `module:Class`", "areal", key="class"
    )
    options: tuple[tuple[str, Value], ...] = ()

    @classmethod
    def further_keys(cls) -> None:
        """Any: the scheduler itself knows its options."""
        return

    @classmethod
    def from_further(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The options."""
        return {"options": tuple(values.items())}

    def further(self) -> tuple[tuple[str, Value], ...]:
        """The options, by name."""
        return self.options

    def _check(self) -> None:
        self._put("options", tuple(sorted((name, _frozen(name, x)) for name, x in self.options)))

    def new(self, limits: Limits) -> Scheduler:
        """Make the scheduler.

        Raises:
            ConfigError: no such class or option, or a value that the class refuses.
        """
        self._check_types()
        try:
            return load(self.class_path, limits, dict(self.options))
        except ConfigError:
            raise
        except (TypeError, ValueError) as error:
            given = toml_value(self.class_path)
            raise ConfigError(f"scheduler.class = {given}: {error}") from None

    def _check_types(self) -> None:
        """Hold the options against the annotations of the class, where those are simple.

        Otherwise a scheduler would take the string "False" for true.
        """
        module, _, name = built_in().get(self.class_path, self.class_path).partition(":")
        try:
            hints = typing.get_type_hints(getattr(importlib.import_module(module), name).__init__)
        except (ImportError, AttributeError, NameError, TypeError, ValueError):
            return  # `load` has the message for it, or there are no annotations to go by
        for key, value in self.options:
            hint = hints.get(key)
            plain = value
            if hint is float and isinstance(value, int) and not isinstance(value, bool):
                plain = float(value)
            if hint in (bool, int, float, str) and type(plain) is not hint:
                names = {bool: "true or false", int: "a whole number", float: "a number"}
                raise ConfigError(
                    f"scheduler.{key} = {toml_value(value)}: expected {names.get(hint, 'a string')}"
                )


def _frozen(name: str, value: Any) -> Value:
    """An option's value, unchangeable: lists become tuples."""
    if isinstance(value, list | tuple):
        return tuple(_frozen(name, item) for item in value)
    if isinstance(value, str | int) or (isinstance(value, float) and not math.isnan(value)):
        return value
    raise ConfigError(
        f"scheduler.{name} = {toml_value(value)}: expected a string, a number, true, false, or a"
        " list of these"
    )


def one_of(where: str, given: Mapping[str, object]) -> None:
    """Check that exactly one of several keys of a table is set.

    Raises:
        ConfigError: none is, or more than one.
    """
    names = [key for key, value in given.items() if value is not None]
    *most, last = given
    if not names:
        raise ConfigError(f"{where}: needs {', '.join(most)} or {last}")
    if len(names) > 1:
        raise ConfigError(
            f"{where}.{names[1]}: not together with {where}.{names[0]}; give one of"
            f" {', '.join(given)}"
        )
