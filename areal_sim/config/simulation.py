"""The section ``[sim]`` and its tables: how servers, trainer and the rest are simulated."""

# ruff: noqa: RUF009 - these calls make fields, not values

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from areal_sched.config.options import Section, choice, flag, number, path, string, table, whole
from areal_sched.errors import ConfigError
from areal_sim.config.fault_schedule import ScheduledFault, read_schedule, reference_note
from areal_sim.costs.constants import Factors


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig(Section):
    """One inference server."""

    TABLE: ClassVar[str] = "sim.server"

    tensor_parallel: int = whole("GPUs of one server", 1)
    static_memory_fraction: float = number(
        "share of GPU memory for weights and KV cache together", 0.8, above=0, most=1
    )
    max_running_rollouts: int | None = whole(
        "rollouts that run at once",
        None,
        optional=True,
        otherwise="the engine's own limit, 2048 to 4096 (`areal_sim.memory.max_running_rollouts`)",
    )
    kv_cache_tokens: int | None = whole(
        "KV entries that one server holds, where that was measured",
        None,
        unit="tokens",
        optional=True,
        otherwise="what the GPUs' memory leaves",
    )
    prefill_chunk_tokens: int = whole(
        "most tokens of one prefill step; SGLang's chunked prefill size", 8192, unit="tokens"
    )
    kv_reserve_tokens_per_rollout: int = whole(
        "KV entries that admission keeps free for each rollout to grow into. SGLang keeps 0.1 to"
        " 0.7 of min(tokens left, 4096)",
        1024,
        unit="tokens",
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainerConfig(Section):
    """The trainer."""

    TABLE: ClassVar[str] = "sim.trainer"

    tensor_parallel: int = whole("GPUs that share every layer", 1)
    pipeline_parallel: int = whole("pipeline stages; data parallel over the rest", 1)
    minibatches: int = whole("PPO minibatches of a training step, one optimizer step each", 4)
    micro_batch_tokens: int = whole("most tokens of one micro-batch", 32_768, unit="tokens")
    packing: Literal["algorithm_1", "first_fit_decreasing", "padded_static"] = choice(
        "how sequences fill micro-batches (`areal_sched.packing`); `algorithm_1` is the paper's",
        ("algorithm_1", "first_fit_decreasing", "padded_static"),
        "algorithm_1",
    )
    balance: Literal["longest_processing_time", "karmarkar_karp"] = choice(
        "how sequences are spread over the data-parallel ranks (`areal_sched.packing`)",
        ("longest_processing_time", "karmarkar_karp"),
        "longest_processing_time",
    )
    recompute_proximal: bool = flag(
        "one forward pass a step for the log-probs of the proximal policy", True
    )
    recompute_activations: bool = flag(
        "full activation recomputation: less memory, one more forward pass of the layers", True
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WeightsConfig(Section):
    """How new weights reach the servers."""

    TABLE: ClassVar[str] = "sim.weights"

    transport: Literal["disk", "collective"] = choice(
        "`disk`: the trainer writes, every server reads; `collective`: broadcast over the network",
        ("disk", "collective"),
        "disk",
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RewardsConfig(Section):
    """Who computes rewards. Nothing is published about it; the defaults are assumptions."""

    TABLE: ClassVar[str] = "sim.rewards"

    workers: int = whole("rewards that are computed at once", 128)
    service_s: float = number("mean time one reward takes a worker", 0.05, unit="s", least=0)
    service_variation: float = number(
        "coefficient of variation of that time, lognormal; 0: constant", 0.0, least=0
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig(Section):
    """What the trainer does after a step before it is ready again, beside training."""

    TABLE: ClassVar[str] = "sim.evaluation"

    save_s: float = number("saving, evaluating and logging take this long", 0.0, unit="s", least=0)
    every_steps: int = whole("after every this many training steps", 1, unit="steps")
    every_s: float = number(
        "and only if so much time has passed since the last time", 0.0, unit="s", least=0
    )

    def pause_s(self, version: int, since_ns: int) -> float:
        """Seconds after a step: its version, and the time since the last such pause."""
        due = version % self.every_steps == 0 and since_ns >= self.every_s * 1e9
        return self.save_s if due else 0.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CostConfig(Section):
    """Where times come from. Every other key replaces a factor of the roofline model."""

    TABLE: ClassVar[str] = "sim.cost"

    provider: Literal["roofline", "fitted", "table"] = choice(
        "`roofline`: analytic (`areal_sim.costs.Roofline`); `fitted`: coefficients from a file that"
        " a calibration wrote; `table`: decode steps fitted to measured ones, the rest analytic",
        ("roofline", "fitted", "table"),
        "roofline",
    )
    file: Path | None = path("of the provider `fitted` or `table`, beside the TOML file")
    system: str | None = string(
        "provider `table`: only rows with this `system`", None, optional=True
    )
    model: str | None = string("provider `table`: only rows with this `model`", None, optional=True)
    factors: Factors = dataclasses.field(default_factory=Factors)

    @classmethod
    def further_keys(cls) -> tuple[str, ...]:
        """The factors of the roofline model."""
        return tuple(field.name for field in dataclasses.fields(Factors))

    @classmethod
    def from_further(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The factors, checked."""
        return {"factors": Factors.from_mapping(values, where=cls.TABLE)}

    def further(self) -> Iterator[tuple[str, float]]:
        """Every factor, unless all times come from a file."""
        if self.provider != "fitted":
            for name in self.further_keys():
                yield name, getattr(self.factors, name)

    @classmethod
    def further_rows(cls) -> Iterator[tuple[str, str, str, str, str]]:
        """The factors, as the reference page lists them."""
        for field in dataclasses.fields(Factors):
            limits = [
                f"{sign} {field.metadata[name]:g}"
                for name, sign in (("above", ">"), ("highest", "<="))
                if name in field.metadata
            ]
            unit = "" if field.metadata["unit"] == "1" else field.metadata["unit"]
            meaning = f"{field.metadata['basis']}: {field.metadata['source']}"
            expected = f"a number {' and '.join(limits) or '>= 0'}"
            yield field.name, expected, unit, f"`{field.default!r}`", meaning

    def _check(self) -> None:
        if self.provider == "roofline" and self.file is not None:
            raise ConfigError('sim.cost.file: belongs to the providers "fitted" and "table"')
        if self.provider != "roofline" and self.file is None:
            raise ConfigError(f'sim.cost.provider = "{self.provider}": needs sim.cost.file')
        for key in ("system", "model"):
            if self.provider != "table" and getattr(self, key) is not None:
                raise ConfigError(f'sim.cost.{key}: belongs to the provider "table"')
        if self.provider == "fitted":
            for info in self.factors.describe():
                if info.basis == "configured":
                    raise ConfigError(
                        f"sim.cost.{info.name}: has no effect, since all times come from"
                        " sim.cost.file"
                    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FaultsConfig(Section):
    """What goes wrong. By default nothing does."""

    TABLE: ClassVar[str] = "sim.faults"
    NOTE: ClassVar[str] = reference_note()

    server_mean_time_between_failures_s: float | None = number(
        "each server fails at random after this long on average; `inf`: never",
        None,
        unit="s",
        above=0,
        unbounded=True,
    )
    server_repair_s: float = number("from a failure until it is back", 300.0, unit="s", least=0)
    straggler_share: float = number("share of the servers that are slow", 0.0, least=0, most=1)
    straggler_slowdown: float = number("a slow one takes this many times as long", 2.0, least=1)
    slow_network_factor: float = number(
        "weight transfers take this many times as long", 1.0, least=1
    )
    schedule: tuple[ScheduledFault, ...] = ()

    @classmethod
    def further_keys(cls) -> tuple[str, ...]:
        """The schedule, a list of tables."""
        return ("schedule",)

    @classmethod
    def from_further(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The schedule, read."""
        return {"schedule": read_schedule(values["schedule"])}

    def further(self) -> Iterator[tuple[str, Any]]:
        """The schedule, if there is one."""
        if self.schedule:
            yield "schedule", [fault.table() for fault in self.schedule]

    @classmethod
    def further_rows(cls) -> Iterator[tuple[str, str, str, str, str]]:
        """The schedule, as the reference page lists it."""
        yield "schedule", "a list of tables", "", "`[]`", "faults at given times, see below"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SimConfig(Section):
    """The simulation. A real run does not read it."""

    TABLE: ClassVar[str] = "sim"

    seed: int = whole("of everything drawn at random", 1, least=0, most=2**64 - 1)
    slice: int = whole(
        "simulate one so-manieth part of the servers, the trainer's ranks and the batch, at the"
        " speed of the whole: a quick look, since step times, shares and lags hardly change. Counts"
        " and sums are those of the part",
        1,
    )
    server: ServerConfig = table(ServerConfig)
    trainer: TrainerConfig = table(TrainerConfig)
    weights: WeightsConfig = table(WeightsConfig)
    rewards: RewardsConfig = table(RewardsConfig)
    evaluation: EvaluationConfig = table(EvaluationConfig)
    cost: CostConfig = table(CostConfig)
    faults: FaultsConfig = table(FaultsConfig)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PublishedConfig(Section):
    """A published value of the same run, for reports to print beside the simulated one."""

    TABLE: ClassVar[str] = "published"

    hours: float = number("how long the run took", unit="h", above=0)
    label: str = string("whose number it is, and where it is printed")
    steps: int | None = whole(
        "training steps in that time", None, optional=True, otherwise="`workload.steps`"
    )
