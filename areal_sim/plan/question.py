"""What is asked: a model, GPUs, a workload, limits, and what to make small.

A question says nothing of layouts, splits or schedules: these are the answer.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from areal_sched.errors import ConfigError, nearest
from areal_sched.load import built_in
from areal_sim.hardware import gpu
from areal_sim.models import ModelShape, load_model

Objective = Literal["hours", "cost", "energy", "gpu-hours", "gpus"]
"""What is made small: time, money, electricity, rented GPU time, or the number of GPUs."""

OBJECTIVES: tuple[Objective, ...] = get_args(Objective)

Costs = Literal["paper", "roofline"]
"""``paper``: the eight numbers fitted to the paper's runs (`areal_sim.published`), which stand for
a released system of 2025; ``roofline``: the uncalibrated defaults of `areal_sim.costs`."""

Transport = Literal["disk", "collective"]
"""How weights travel from trainer to servers, as ``sim.weights.transport``."""

_IT_DECIDES = "the plan decides it"
DECIDED = {
    "cluster.gpu": "ask with gpus",
    "cluster.nodes": "ask with gpus",
    "cluster.gpus_per_node": "ask with gpus_per_node",
    "cluster.generation_share": _IT_DECIDES,
    "cluster.colocated": _IT_DECIDES,
    "model": "ask with model",
    "workload.steps": "ask with steps",
    "workload.preset": "ask with task",
    "workload.trace": "ask with trace",
    "workload.length_scale": "ask with length_scale",
    "workload.prompts_per_step": "ask with prompts_per_step",
    "workload.group_size": "ask with group_size",
    "workload.max_prompt_tokens": "ask with max_prompt_tokens",
    "workload.max_response_tokens": "ask with max_response_tokens",
    "limits.eta": "ask with eta",
    "limits.max_lag": "ask with max_lag",
    "limits.max_rollouts_in_flight": _IT_DECIDES,
    "scheduler.class": "ask with schedulers",
    "sim.seed": "ask with seed",
    "sim.slice": _IT_DECIDES,
    "sim.server.tensor_parallel": _IT_DECIDES,
    "sim.server.static_memory_fraction": _IT_DECIDES,
    "sim.trainer.tensor_parallel": _IT_DECIDES,
    "sim.trainer.pipeline_parallel": _IT_DECIDES,
    "sim.trainer.minibatches": _IT_DECIDES,
    "sim.trainer.micro_batch_tokens": _IT_DECIDES,
    "sim.weights.transport": "ask with transport",
    "sim.cost.provider": "ask with costs",
}
"""Keys of a configuration that a question's changes may not touch, and what to do instead."""

OF_A_KIND = ("cluster.usd_per_gpu_hour", "cluster.busy_watts", "cluster.idle_watts")
"""Keys that are of one kind of GPU."""

TASKS = {"math": ("math-1.5b-deepscaler-mean", 8), "code": ("code-14b", 4)}
"""Workload preset and greatest eta of a task, as in the paper (arXiv 2505.24298, section 7)."""

ETAS = (0, 1, 2, 4, 8, 16)
"""Staleness bounds that are tried, up to the greatest allowed."""

SCHEDULERS = ("areal", "one_step_off", "synchronous")
"""Tried unless others are named."""

MOST_GPUS = 512
"""Where a question gives no number of GPUs: at most so many."""

LARGEST = 16_384
"""Beyond the largest cluster that anybody trains such models on."""

GPUS_PER_NODE = 8

_OFFER = re.compile(r"(?:(?P<count>[+-]?[0-9.]+)\s*x\s*)?(?P<gpu>[A-Za-z][A-Za-z0-9-]*)")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """GPUs that could be used: a kind, and how many; None: as many as are of use."""

    gpu: str
    count: int | None

    @classmethod
    def parse(cls, text: str) -> Offer:
        """Read ``512xH800`` or ``H800``.

        Raises:
            ConfigError: it is neither, or there is no such GPU.
        """
        match = _OFFER.fullmatch(text.strip())
        if match is None:
            raise ConfigError(f"gpus = {text!r}: expected COUNTxGPU or GPU, as 64xH100")
        try:
            name = gpu(match["gpu"]).name
        except ConfigError as error:
            raise ConfigError(f"gpus = {text!r}: {error}") from None
        if match["count"] is None:
            return cls(gpu=name, count=None)
        try:
            count = int(match["count"])
        except ValueError:
            count = 0
        if not 1 <= count <= LARGEST:
            raise ConfigError(
                f"gpus = {text!r}: the count must be a whole number, from 1 to {LARGEST}"
            )
        return cls(gpu=name, count=count)

    def __str__(self) -> str:
        return self.gpu if self.count is None else f"{self.count}x{self.gpu}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question to the planner.

    Attributes:
        model: a name `areal_sim.models` knows, or the path of a ``config.json``.
        gpus: the GPUs to choose from; the answer uses one kind.
        task: ``math``, ``code``, or a workload of `traces.presets`; not together with `trace`.
        trace: a file of measured lengths.
        length_scale: answers are so many times as long as the preset or the trace says; None: as
            calibrated, for a task with the costs ``paper``, else 1.
        steps, prompts_per_step, group_size, max_prompt_tokens, max_response_tokens: of the run.
        objective: what is made small.
        deadline_h: the run may take so many hours.
        budget_usd: the run may cost so much.
        step_s: a training step may take so many seconds.
        eta: the greatest staleness bound to try; None: the task's, 8 where it has none.
        max_lag: no trajectory may be older than so many versions when it is trained on.
        schedulers: built-in schedulers to choose from.
        costs: see `Costs`.
        transport: see `Transport`.
        gpus_per_node: of every node; a count below that is one node.
        prices: (GPU, USD for an hour of one) where these are not `areal_sim.power`'s.
        changes: ``key=value`` for every configuration that is tried, as for ``--set``.
        seed: of all simulations.
    """

    model: str
    gpus: tuple[Offer, ...]
    task: str | None = "math"
    trace: Path | None = None
    length_scale: float | None = None
    steps: int = 250
    prompts_per_step: int = 512
    group_size: int = 16
    max_prompt_tokens: int = 1024
    max_response_tokens: int = 27_648
    objective: Objective = "hours"
    deadline_h: float | None = None
    budget_usd: float | None = None
    step_s: float | None = None
    eta: int | None = None
    max_lag: int | None = None
    schedulers: tuple[str, ...] = SCHEDULERS
    costs: Costs = "paper"
    transport: Transport = "disk"
    gpus_per_node: int = GPUS_PER_NODE
    prices: tuple[tuple[str, float], ...] = ()
    changes: tuple[str, ...] = ()
    seed: int = 1

    def __post_init__(self) -> None:
        """Check each answerable by itself.

        Raises:
            ConfigError: the first field that makes no sense, with its value.
        """
        self._check_numbers()
        if not self.gpus:
            raise ConfigError("gpus: needs at least one, as 64xH100")
        for offer in self.gpus:
            if offer.count is not None:
                self.nodes_of(offer.count)
        if (self.task is None) == (self.trace is None):
            raise ConfigError("task, trace: give one of them")
        self._check_task()
        self._check_schedulers()
        for field, known in (
            ("objective", OBJECTIVES),
            ("costs", get_args(Costs)),
            ("transport", get_args(Transport)),
        ):
            value = getattr(self, field)
            if value not in known:
                raise ConfigError(f"{field} = {value!r}: no such one{nearest(str(value), known)}")
        for name, price in self.prices:
            if gpu(name).name != name or not (math.isfinite(price) and price > 0):
                raise ConfigError(f"prices: {name} = {price!r}: expected a number > 0")
        for change in self.changes:
            key = change.partition("=")[0].strip()
            if key in OF_A_KIND and len(self.gpus) > 1:
                raise ConfigError(
                    f"--set {change}: would be of every kind of GPU; ask for one, or with prices"
                )
            if key in DECIDED or key.partition(".")[0] in DECIDED:
                instead = DECIDED.get(key) or DECIDED[key.partition(".")[0]]
                raise ConfigError(f"--set {change}: is not for --set here: {instead}")
        if self.objective == "gpus" and self.deadline_h is None and self.step_s is None:
            raise ConfigError(
                "objective = 'gpus': the fewest GPUs for what? Give a deadline or a step time"
            )
        model = self.shape()
        context = self.max_prompt_tokens + self.max_response_tokens
        if context > model.max_position_embeddings:
            most = model.max_position_embeddings - self.max_prompt_tokens
            raise ConfigError(
                f"max_response_tokens = {self.max_response_tokens}: makes a context of {context}"
                f" tokens, {model.name} has {model.max_position_embeddings}; at most {most} would"
                " do"
            )

    def _check_numbers(self) -> None:
        whole = {
            "steps": 1,
            "prompts_per_step": 1,
            "group_size": 1,
            "max_prompt_tokens": 1,
            "max_response_tokens": 1,
            "gpus_per_node": 1,
            "eta": 0,
            "max_lag": 0,
            "seed": 0,
        }
        for field, least in whole.items():
            value = getattr(self, field)
            if value is not None and not (type(value) is int and value >= least):
                raise ConfigError(f"{field} = {value!r}: expected a whole number >= {least}")
        for field in ("deadline_h", "budget_usd", "step_s", "length_scale"):
            value = getattr(self, field)
            if value is None:
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and math.isfinite(value) and value > 0):
                raise ConfigError(f"{field} = {value!r}: expected a number > 0")

    def _check_task(self) -> None:
        from traces.presets import PRESETS

        if self.task is not None and self.task not in TASKS and self.task not in PRESETS:
            known = (*TASKS, *PRESETS)
            raise ConfigError(f"task = {self.task!r}: no such task{nearest(self.task, known)}")
        if self.trace is None:
            return
        if not self.trace.is_file():
            raise ConfigError(f"trace = {str(self.trace)!r}: no such file")
        from traces.errors import TraceError
        from traces.loaders import detect

        try:
            detect(self.trace)
        except TraceError as error:
            raise ConfigError(f"trace: {error}") from None

    def _check_schedulers(self) -> None:
        if not self.schedulers:
            raise ConfigError("schedulers: needs at least one")
        for name in self.schedulers:
            if name not in built_in():
                raise ConfigError(
                    f"schedulers: {name!r}: no such scheduler{nearest(name, built_in())}"
                )
        if set(self.schedulers) == {"one_step_off"} and self.etas()[-1] < 1:
            raise ConfigError("schedulers: one_step_off needs an eta of at least 1")

    # ---- what follows ----------------------------------------------------------------------------

    def shape(self) -> ModelShape:
        """The model's sizes.

        Raises:
            ConfigError: there is no such model, or its file cannot be read.
        """
        return load_model(self.model)

    @property
    def train_batch_rollouts(self) -> int:
        """B: trajectories of a training step."""
        return self.prompts_per_step * self.group_size

    def etas(self) -> tuple[int, ...]:
        """Staleness bounds to try, ascending."""
        most = self.eta
        if most is None:
            most = TASKS[self.task][1] if self.task in TASKS else 8
        if self.max_lag is not None:
            most = min(most, self.max_lag)
        return tuple(sorted({eta for eta in ETAS if eta <= most} | {most}))

    def nodes_of(self, count: int) -> tuple[int, int]:
        """(nodes, GPUs of each) of so many GPUs.

        Raises:
            ConfigError: they do not fill whole nodes.
        """
        if count <= self.gpus_per_node:
            return 1, count
        if count % self.gpus_per_node:
            below = count - count % self.gpus_per_node
            raise ConfigError(
                f"gpus = {count}: does not fill nodes of gpus_per_node = {self.gpus_per_node};"
                f" {below} or {below + self.gpus_per_node} would"
            )
        return count // self.gpus_per_node, self.gpus_per_node

    def counts(self, offer: Offer) -> tuple[int, ...]:
        """Numbers of GPUs to try of an offer, ascending.

        All of them where time is what counts and they are given; else sizes up to that, each a
        third to a half larger than the last.
        """
        most = offer.count or MOST_GPUS
        if offer.count is not None and self.objective == "hours" and self.budget_usd is None:
            return (most,)
        sizes, per_node = {most}, self.gpus_per_node
        for power in range(most.bit_length()):
            for size in (2**power, 3 * 2**power):
                sizes.update((size, size * per_node))
        whole = (size for size in sizes if size <= per_node or size % per_node == 0)
        return tuple(sorted(size for size in whole if size <= most))


def offers(texts: Sequence[str]) -> tuple[Offer, ...]:
    """Several offers, each as `Offer.parse` reads it or separated by commas."""
    parts = [part for text in texts for part in text.split(",")]
    return tuple(Offer.parse(part) for part in parts)
