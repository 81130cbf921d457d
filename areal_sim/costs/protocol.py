"""The protocol every cost model fulfils, and the arithmetic on its coefficients.

A server's times are integer femtoseconds, so that the closed form over k decode steps equals the
sum over those steps exactly, not up to rounding. A trainer's are float seconds: nothing there is
summed in two ways.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Literal, Protocol, runtime_checkable

from areal_sched.errors import ConfigError

FS_PER_NS = 10**6
FS_PER_S = 10**15

Phase = Literal["generate", "train"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServerCost:
    """One inference server, whatever its number of GPUs. All fields are integer femtoseconds.

    A decode step of n rollouts whose KV caches hold kv tokens together takes
    ``decode_base_fs + decode_per_rollout_fs * n + decode_per_kv_token_fs * kv``.

    A prefill step over chunks takes ``prefill_base_fs`` plus, for every chunk of t new tokens
    behind s tokens that are already in the cache,
    ``prefill_per_token_fs * t + prefill_per_token_pair_fs * (t * s + t * (t + 1) // 2)``, plus
    ``prefill_per_rollout_fs`` for every context that the step completes.
    """

    decode_base_fs: int
    decode_per_rollout_fs: int
    decode_per_kv_token_fs: int
    prefill_base_fs: int
    prefill_per_token_fs: int
    prefill_per_token_pair_fs: int
    prefill_per_rollout_fs: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ConfigError(f"{field.name} = {value!r}: expected an integer >= 0")
        if self.decode_base_fs + self.decode_per_rollout_fs == 0:
            raise ConfigError("decode_base_fs = decode_per_rollout_fs = 0: decoding takes no time")

    def slowed(self, factor: float) -> ServerCost:
        """All coefficients times `factor`."""
        if factor == 1.0:
            return self
        fields = {f.name: round(getattr(self, f.name) * factor) for f in dataclasses.fields(self)}
        return ServerCost(**fields)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainerCost:
    """One data-parallel rank: one pipeline of tp * pp GPUs.

    A micro-batch of sequences of lengths L occupies every pipeline stage for
    ``base + per_token * sum(L) + per_token_pair * sum(L^2)`` seconds: with a full pipeline this is
    the time from the end of one micro-batch to the end of the next. What a rank takes for all of
    its micro-batches is in `areal_sim.costs.pipeline`.

    Attributes:
        update_base_s: forward, backward and recomputation, per micro-batch.
        update_per_token_s: the same, per token.
        update_per_token_pair_s: the same, per squared token.
        forward_base_s: forward only (proximal log-probs), per micro-batch.
        forward_per_token_s: the same, per token.
        forward_per_token_pair_s: the same, per squared token.
        pipeline_stages: pp.
        optimizer_s: per minibatch: gradient reduce-scatter, Adam, parameter all-gather.
        step_overhead_s: per training step: data movement, packing, advantages, logging.
    """

    update_base_s: float
    update_per_token_s: float
    update_per_token_pair_s: float
    forward_base_s: float
    forward_per_token_s: float
    forward_per_token_pair_s: float
    pipeline_stages: int
    optimizer_s: float
    step_overhead_s: float

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{field.name} = {value!r}: expected a finite number >= 0")
        if self.pipeline_stages < 1:
            raise ConfigError(f"pipeline_stages = {self.pipeline_stages!r}: must be at least 1")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClientCost:
    """What lies between a scheduler's command and the engine, and between the engine and the event.

    Requests and answers pass one after the other. All zero: nothing lies between.

    Attributes:
        dispatch_s: a request's way to the engine, beyond waiting for those before it.
        dispatch_per_rollout_s: from one request to the next at least.
        report_s: an answer's way back.
        report_per_rollout_s: from one answer to the next at least.
        stop_s: an interruption's way; the engine goes on meanwhile.
        train_s: from the command for a training step until the trainer begins.
        trained_s: from the step's published weights until that is known.
    """

    dispatch_s: float = 0.0
    dispatch_per_rollout_s: float = 0.0
    report_s: float = 0.0
    report_per_rollout_s: float = 0.0
    stop_s: float = 0.0
    train_s: float = 0.0
    trained_s: float = 0.0

    def __post_init__(self) -> None:
        _not_negative(self)

    @property
    def nothing(self) -> bool:
        """Whether nothing lies between."""
        return self == ClientCost()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostCost:
    """One machine whose processors servers and trainer share; see `areal_sim.host`.

    Attributes:
        cores: processors there are; None: devices do not disturb each other.
        server_cores: what a server wants while it works.
        trainer_cores: what the trainer takes while it works.
    """

    cores: float | None = None
    server_cores: float = 0.0
    trainer_cores: float = 0.0

    def __post_init__(self) -> None:
        _not_negative(self)
        if self.cores is not None and self.cores == 0:
            raise ConfigError("cores = 0: expected a number > 0")


def _not_negative(costs: ClientCost | HostCost) -> None:
    for field in dataclasses.fields(costs):
        value = getattr(costs, field.name)
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{field.name} = {value!r}: expected a finite number >= 0")


@runtime_checkable
class CostProvider(Protocol):
    """Where the simulator gets its times from."""

    def server(self) -> ServerCost:
        """Coefficients of one inference server."""

    def trainer(self) -> TrainerCost:
        """Coefficients of the trainer."""

    def weight_publish_s(self) -> float:
        """Trainer side, before any server can load: gather, and save if by disk."""

    def weight_load_s(self) -> float:
        """One server loads new weights; it is paused meanwhile unless the mode says otherwise."""

    def weight_load_shared_s(self) -> float:
        """So much longer it takes for each other server that loads at the same time."""

    def switch_s(self, to: Phase) -> float:
        """Colocated only: turn the GPUs over to that phase (offload, reload)."""

    def client(self) -> ClientCost:
        """What lies between scheduler and engines."""

    def host(self) -> HostCost:
        """The machine that servers and trainer share, if they do."""


def decode_time_fs(cost: ServerCost, n: int, kv: int, k: int) -> int:
    """Femtoseconds of k decode steps of n rollouts that hold kv tokens before the first of them.

    Every step adds one token to each of the n caches, hence
    ``k * (a + b n + c kv) + c n k (k - 1) / 2``.
    """
    _check_batch(n, kv)
    if k < 0:
        raise ValueError(f"k = {k}: a number of steps cannot be negative")
    # k (k - 1) is even, so the division is exact.
    return k * _step_fs(cost, n, kv) + cost.decode_per_kv_token_fs * n * (k * (k - 1) // 2)


def steps_within_fs(cost: ServerCost, n: int, kv: int, budget_fs: int) -> int:
    """The most decode steps that end within the budget: the exact inverse of `decode_time_fs`.

    The largest k with ``q k^2 + (2 A - q) k <= 2 budget`` where A is the first step's time and
    q = c n; floor((-p + sqrt(D)) / 2 q) equals the same with the integer square root.
    """
    _check_batch(n, kv)
    if budget_fs < 0:
        raise ValueError(f"budget_fs = {budget_fs}: cannot be negative")
    first = _step_fs(cost, n, kv)
    growth = cost.decode_per_kv_token_fs * n
    if growth == 0:
        return budget_fs // first
    linear = 2 * first - growth
    root = math.isqrt(linear * linear + 8 * growth * budget_fs)
    return (root - linear) // (2 * growth)


def prefill_time_fs(cost: ServerCost, chunks: Iterable[tuple[int, int]], completed: int = 0) -> int:
    """Femtoseconds of one prefill step.

    Args:
        cost: the server.
        chunks: (new tokens t, tokens s already in the cache) of every chunk in the step.
        completed: contexts that the step completes.
    """
    tokens = pairs = 0
    for new, cached in chunks:
        if new < 1 or cached < 0:
            raise ValueError(f"chunk ({new}, {cached}): needs new >= 1 and cached >= 0 tokens")
        tokens += new
        pairs += new * cached + new * (new + 1) // 2
    linear = cost.prefill_base_fs + cost.prefill_per_token_fs * tokens
    linear += cost.prefill_per_rollout_fs * completed
    return linear + cost.prefill_per_token_pair_fs * pairs


def _step_fs(cost: ServerCost, n: int, kv: int) -> int:
    return cost.decode_base_fs + cost.decode_per_rollout_fs * n + cost.decode_per_kv_token_fs * kv


def _check_batch(n: int, kv: int) -> None:
    if n < 1 or kv < 0:
        raise ValueError(f"a batch needs n >= 1 rollouts and kv >= 0 tokens, got {n} and {kv}")
