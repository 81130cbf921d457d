"""The section ``[workload]``: what is generated and trained on."""

# ruff: noqa: RUF009 - these calls make fields, not values

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal

from areal_sched.config.options import (
    Section,
    choice,
    number,
    path,
    string,
    table,
    toml_value,
    whole,
)
from areal_sched.config.sections import BatchKeys, one_of
from areal_sched.errors import ConfigError, nearest

DEGREES_OF_FREEDOM = 8.0
"""Student-t within a prompt, the default of `traces.lengths.LogNormalGroups`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LengthConfig(Section):
    """Synthetic responses: either `constant`, or `mu`, `sigma_between` and `sigma_within`.

    The second is `traces.lengths.LogNormalGroups`.
    """

    TABLE: ClassVar[str] = "workload.length"

    constant: int | None = whole(
        "every response has this length", None, unit="tokens", optional=True
    )
    mu: float | None = number("mean of log tokens at step 0", None, optional=True)
    sigma_between: float | None = number(
        "standard deviation of the prompts' means of log tokens", None, least=0, optional=True
    )
    sigma_within: float | None = number(
        "standard deviation of log tokens within a prompt", None, least=0, optional=True
    )
    degrees_of_freedom: float | None = number(
        "of the Student-t within a prompt; `inf`: normal",
        None,
        above=2,
        infinite=True,
        optional=True,
        otherwise=f"`{DEGREES_OF_FREEDOM}`, with `mu`",
    )
    drift_per_step: float | None = number(
        "what `mu` grows by each training step", None, optional=True, otherwise="`0.0`, with `mu`"
    )

    def _check(self) -> None:
        parts = ("mu", "sigma_between", "sigma_within")
        _constant_or(self, parts, others=("degrees_of_freedom", "drift_per_step"))
        if self.constant is None:
            if self.degrees_of_freedom is None:
                self._put("degrees_of_freedom", DEGREES_OF_FREEDOM)
            if self.drift_per_step is None:
                self._put("drift_per_step", 0.0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PromptLengthConfig(Section):
    """Prompt lengths in place of the preset's or the trace's: `constant`, or `mu` and `sigma`.

    The second is `traces.lengths.LogNormalPrompts`. A trace that does not record prompts needs
    this table; `[workload.length]` has math prompts (`traces.presets.MATH_PROMPTS`) without it.
    """

    TABLE: ClassVar[str] = "workload.prompt_length"

    constant: int | None = whole("every prompt has this length", None, unit="tokens", optional=True)
    mu: float | None = number("mean of log tokens", None, optional=True)
    sigma: float | None = number("standard deviation of log tokens", None, least=0, optional=True)

    def _check(self) -> None:
        _constant_or(self, ("mu", "sigma"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _SourceKeys(Section):
    """Where lengths come from: the first keys of ``[workload]``."""

    __slots__ = ()
    TABLE: ClassVar[str] = "workload"

    preset: str | None = string("a named workload of `traces.presets`", None, optional=True)
    trace: Path | None = path("a file of measured lengths")
    trace_format: str | None = string(
        "format of the trace (`traces.loaders`)",
        None,
        optional=True,
        otherwise="seen from the file",
    )
    resample: Literal["by_prompt", "pooled"] | None = choice(
        "how a trace is drawn from: prompt by prompt, which keeps the correlation within a prompt,"
        " or every response from the whole file",
        ("by_prompt", "pooled"),
        None,
        optional=True,
        otherwise="`by_prompt`, with `trace`",
    )
    length_scale: float = number("responses are made this many times as long", 1.0, above=0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadConfig(BatchKeys, _SourceKeys):
    """What is generated and trained on: one of `preset`, `trace` and `[workload.length]`."""

    # Fields come in the order _SourceKeys, BatchKeys, own ones; the hash of a run goes by it.

    length: LengthConfig | None = table(LengthConfig, optional=True)
    prompt_length: PromptLengthConfig | None = table(PromptLengthConfig, optional=True)

    def _check(self) -> None:
        kinds = {"preset": self.preset, "trace": self.trace, "length": self.length}
        one_of(self.TABLE, kinds)
        if self.preset is not None:
            # Imported late, as `traces` below: it brings numpy.
            from traces.presets import PRESETS

            if self.preset not in PRESETS:
                raise ConfigError(
                    f"workload.preset = {toml_value(self.preset)}: no such workload"
                    f"{nearest(self.preset, PRESETS)}"
                )
        if self.trace is not None:
            self._check_trace(self.trace)
            return
        for key in ("trace_format", "resample"):
            if (value := getattr(self, key)) is not None:
                raise ConfigError(
                    f"workload.{key} = {toml_value(value)}: belongs to workload.trace, which is"
                    " not set"
                )

    def _check_trace(self, trace: Path) -> None:
        from traces.errors import TraceError
        from traces.loaders import FORMATS, detect

        if self.resample is None:
            self._put("resample", "by_prompt")
        names = [known.name for known in FORMATS]
        if self.trace_format is None:
            try:
                self._put("trace_format", detect(trace).name)
            except TraceError as error:
                raise ConfigError(f"workload.trace: {error}") from None
        elif self.trace_format not in names:
            raise ConfigError(
                f"workload.trace_format = {toml_value(self.trace_format)}: no such format"
                f"{nearest(self.trace_format, names)}"
            )


def _constant_or(
    section: LengthConfig | PromptLengthConfig,
    parts: tuple[str, ...],
    others: tuple[str, ...] = (),
) -> None:
    """Check for either ``constant`` alone, or all of `parts` and any of `others`."""
    given = [key for key in (*parts, *others) if getattr(section, key) is not None]
    if section.constant is not None:
        if given:
            raise ConfigError(f"{section.TABLE}.{given[0]}: not together with constant")
        return
    *most, last = parts
    for key in parts:
        if getattr(section, key) is None:
            raise ConfigError(
                f"{section.TABLE}: {key} is missing; needs constant, or {', '.join(most)} and"
                f" {last}"
            )
