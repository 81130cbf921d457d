"""The tables of a real run: what [cluster] and [workload] are to it, and the short ones of [real].

Servers and trainer have files of their own.
"""

# ruff: noqa: RUF009 - these calls make fields, not values

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal

from areal_sched.config.options import (
    Section,
    choice,
    flag,
    number,
    path,
    toml_value,
    whole,
)
from areal_sched.config.sections import BatchKeys
from areal_sched.errors import ConfigError

BYTES_OF_DTYPE = {"float32": 4, "bfloat16": 2}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig(Section):
    """The machines of a run on GPUs. A run on the CPU needs none of it."""

    TABLE: ClassVar[str] = "cluster"
    ELSEWHERE: ClassVar[frozenset[str]] = frozenset(
        {
            *("gpu", "network_bytes_per_s_per_node", "generation_share", "colocated"),
            *("busy_watts", "idle_watts", "host_watts_per_gpu", "power_usage_effectiveness"),
            "usd_per_gpu_hour",
        }
    )

    nodes: int = whole("number of nodes, all alike", 1)
    gpus_per_node: int = whole("GPUs of a node", 8)

    @property
    def gpus(self) -> int:
        """All GPUs."""
        return self.nodes * self.gpus_per_node


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadConfig(BatchKeys):
    """The batch and the longest rollout. What is generated is up to `[real.task]`."""

    ELSEWHERE: ClassVar[frozenset[str]] = frozenset(
        {"preset", "trace", "trace_format", "resample", "length_scale", "length", "prompt_length"}
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TaskConfig(Section):
    """What is learnt: the built-in `arithmetic`, or `prompts` from a file."""

    TABLE: ClassVar[str] = "real.task"

    name: Literal["arithmetic", "prompts"] = choice(
        "`arithmetic`: made up as needed, for a tiny model; `prompts`: math and code problems from"
        " a JSONL file",
        ("arithmetic", "prompts"),
        "arithmetic",
    )
    difficulty: int | None = whole(
        "of `arithmetic`, 1 to 4: from 2 on the warm start shows fewer carries, 3 and 4 have longer"
        " lists",
        None,
        optional=True,
        otherwise="`1`, with `arithmetic`",
    )
    file: Path | None = path("of `prompts`: the problems to train on", must_exist=False)
    held_out_file: Path | None = path(
        "of `prompts`: the problems to be judged by",
        must_exist=False,
        otherwise="the last `held_out_problems` of `file`",
    )
    tokenizer: Path | None = path(
        "of `prompts`: a Hugging Face tokenizer's folder",
        must_exist=False,
        otherwise="`real.model.path`, with `prompts`",
    )
    held_out_problems: int = whole("problems that are never trained on", 200)

    def _check(self) -> None:
        if self.name == "arithmetic":
            for key in ("file", "held_out_file", "tokenizer"):
                if (value := getattr(self, key)) is not None:
                    raise ConfigError(
                        f'real.task.{key} = {toml_value(value)}: belongs to the task "prompts"'
                    )
            if self.difficulty is None:
                self._put("difficulty", 1)
            return
        if self.difficulty is not None:
            raise ConfigError(
                f'real.task.difficulty = {self.difficulty}: belongs to the task "arithmetic"'
            )
        if self.file is None:
            raise ConfigError('real.task.name = "prompts": needs real.task.file')


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig(Section):
    """The model that is trained and served."""

    TABLE: ClassVar[str] = "real.model"

    path: Path | None = path(
        "a Hugging Face folder: `config.json`, and `*.safetensors` to start from; without weights"
        " they are drawn at random",
        must_exist=False,
        otherwise="the task's own tiny model",
    )
    dtype: Literal["float32", "bfloat16"] = choice(
        "of the parameters and the KV cache; gradients and optimizer state are float32",
        ("float32", "bfloat16"),
        "float32",
    )

    @property
    def bytes_per_parameter(self) -> int:
        """Of weights and KV cache."""
        return BYTES_OF_DTYPE[self.dtype]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WarmStartConfig(Section):
    """Supervised training before the first rollout, on answers that the task makes itself."""

    TABLE: ClassVar[str] = "real.warm_start"

    steps: int = whole("optimizer steps; 0: no warm start", 0, unit="steps", least=0)
    batch_sequences: int = whole("examples of one step", 64)
    learning_rate: float = number("of the warm start, constant", 1e-3, above=0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PpoConfig(Section):
    """The loss. gamma = lambda = 1: the reward of an answer is the return of every token of it."""

    TABLE: ClassVar[str] = "real.ppo"

    objective: Literal["decoupled", "naive"] = choice(
        "`decoupled`: clipped around the policy at the start of the step, weighted for who"
        " generated the token (paper eq. 5); `naive`: clipped around that one (plain PPO)",
        ("decoupled", "naive"),
        "decoupled",
    )
    clip: float = number("the ratio is clipped to 1 - clip and 1 + clip", 0.2, above=0, below=1)
    behaviour_weight_cap: float | None = number(
        "tokens whose weight proximal / behaviour is above it are left out; `inf`: none",
        5.0,
        least=1,
        unbounded=True,
    )
    entropy_coefficient: float = number("weight of the entropy bonus", 0.0, least=0)
    baseline: Literal["grpo", "rloo", "none"] = choice(
        "what is taken off a reward: `grpo`: the mean of its group; `rloo`: the mean of the others"
        " of its group",
        ("grpo", "rloo", "none"),
        "grpo",
    )
    divide_by_std: bool = flag(
        "divide by the standard deviation of the group's rewards, with `grpo`", False
    )
    normalise_advantages: bool = flag("to mean 0 and variance 1 over the tokens of a batch", True)

    def _check(self) -> None:
        if self.divide_by_std and self.baseline != "grpo":
            raise ConfigError(
                'real.ppo.divide_by_std = true: belongs to the baseline "grpo", this is'
                f" {toml_value(self.baseline)}"
            )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RewardsConfig(Section):
    """The worker processes that judge answers."""

    TABLE: ClassVar[str] = "real.rewards"

    workers: int = whole("processes", 1)
    timeout_s: float = number(
        "an answer that takes longer to judge is wrong", 10.0, unit="s", above=0
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig(Section):
    """Accuracy on held-out problems, also before the first step and after the last."""

    TABLE: ClassVar[str] = "real.evaluation"

    every_steps: int | None = whole(
        "after every this many training steps; `inf`: only before the first and after the last",
        10,
        unit="steps",
        unbounded=True,
    )
    problems: int = whole("held-out problems, the first ones, one answer each", 100)
