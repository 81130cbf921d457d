"""The sections of a configuration that simulated and real runs share."""

from __future__ import annotations

import dataclasses
import importlib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

from areal_sched.config.model_shape import ModelShape
from areal_sched.config.options import Section, string, toml_value, whole
from areal_sched.config.overrides import Owner
from areal_sched.controller import Scheduler
from areal_sched.errors import ConfigError
from areal_sched.limits import Limits
from areal_sched.load import built_in, load

Value: TypeAlias = "str | int | float | bool | tuple[Value, ...]"
"""Of an option of a scheduler."""

DEFAULT_SCHEDULER = "areal"

SCHEDULER_OWNER = Owner(table=("scheduler",), key="class", default=DEFAULT_SCHEDULER)
"""Another scheduler does not get the options of the old one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchKeys(Section):
    """The keys of ``[workload]`` that both worlds read.

    Each world makes its own section of them and of what it alone needs; this one is a part of a
    section and not made by itself. It has no slots, so that it can be one base of several.
    """

    __slots__ = ()
    TABLE: ClassVar[str] = "workload"

    prompts_per_step: int = whole("prompts of one training step", 512)
    group_size: int = whole("responses to each prompt", 16)
    max_prompt_tokens: int = whole("prompts are cut here", 1024, unit="tokens")
    max_response_tokens: int = whole("responses are cut here", 27_648, unit="tokens")
    steps: int = whole("training steps of the run", 250)

    @property
    def max_context_tokens(self) -> int:
        """The longest rollout, prompt included."""
        return self.max_prompt_tokens + self.max_response_tokens

    @property
    def train_batch_rollouts(self) -> int:
        """Trajectories of one training step, B in the paper."""
        return self.prompts_per_step * self.group_size

    def check_context(self, model: ModelShape) -> None:
        """Check that the longest rollout is not longer than what the model was made for.

        Raises:
            ConfigError: it is.
        """
        context, most = self.max_context_tokens, model.max_position_embeddings
        if context > most:
            raise ConfigError(
                f"workload.max_response_tokens = {self.max_response_tokens}: makes a context of"
                f" {context} tokens, {model.name} has {most}; at most"
                f" {most - self.max_prompt_tokens} would do"
            )


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

    def limits(self, workload: BatchKeys) -> Limits:
        """The bounds with the batch, B = prompts_per_step * group_size, as schedulers take them."""
        return Limits(
            train_batch_rollouts=workload.train_batch_rollouts,
            group_size=workload.group_size,
            eta=self.eta,
            max_lag=self.max_lag,
            max_rollouts_in_flight=self.max_rollouts_in_flight,
            max_failures_per_group=self.max_failures_per_group,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig(Section):
    """The scheduler. Every key but `class` is an option of it."""

    TABLE: ClassVar[str] = "scheduler"
    NOTE: ClassVar[str] = """\
The options of the built-in schedulers are on their [reference pages](areal_sched.schedulers.md).
"""

    class_path: str = string(
        "a built-in scheduler, as `areal`, or `module:Class`", DEFAULT_SCHEDULER, key="class"
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
            if typing.get_origin(hint) in (types.UnionType, typing.Union):
                kinds = [x for x in typing.get_args(hint) if x is not types.NoneType]
                hint = kinds[0] if len(kinds) == 1 else None  # None: left out; no file can say it
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
