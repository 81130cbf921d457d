"""The configuration of one real run: all tables, and what must hold between them."""

# ruff: noqa: RUF009 - these calls make fields, not values

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from areal_real.config.server import ServerConfig
from areal_real.config.tables import (
    ClusterConfig,
    EvaluationConfig,
    ModelConfig,
    PpoConfig,
    RewardsConfig,
    TaskConfig,
    WarmStartConfig,
    WorkloadConfig,
)
from areal_real.config.trainer import TrainerConfig
from areal_sched.config.model_shape import ModelShape
from areal_sched.config.options import Section, choice, table, toml_value, whole
from areal_sched.config.sections import LimitsConfig, SchedulerConfig
from areal_sched.controller import Scheduler
from areal_sched.errors import ConfigError
from areal_sched.limits import Limits


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BackendConfig(Section):
    """The real run. A simulation does not read it."""

    TABLE: ClassVar[str] = "real"

    device: Literal["cpu", "cuda"] = choice(
        "what servers and trainer run on; the same code, gloo on `cpu` and NCCL on `cuda`",
        ("cpu", "cuda"),
        "cpu",
    )
    listen: Literal["loopback", "cluster"] = choice(
        "addresses that servers and trainer listen on: `loopback`, so that only their own machine"
        " reaches them, or `cluster`, that of their node in the Ray cluster of `--engine ray`",
        ("loopback", "cluster"),
        "loopback",
    )
    seed: int = whole("of all that is drawn at random", 1, least=0, most=2**31 - 1)
    checkpoint_every_steps: int = whole(
        "after every this many training steps, and after the last", 1, unit="steps"
    )
    keep_checkpoints: int = whole("so many of the newest are kept", 2)
    task: TaskConfig = table(TaskConfig)
    model: ModelConfig = table(ModelConfig)
    warm_start: WarmStartConfig = table(WarmStartConfig)
    server: ServerConfig = table(ServerConfig)
    trainer: TrainerConfig = table(TrainerConfig)
    ppo: PpoConfig = table(PpoConfig)
    rewards: RewardsConfig = table(RewardsConfig)
    evaluation: EvaluationConfig = table(EvaluationConfig)

    def _check(self) -> None:
        if self.task.name == "prompts":
            if self.model.path is None:
                raise ConfigError('real.task.name = "prompts": needs real.model.path')
            if self.warm_start.steps:
                raise ConfigError(
                    f"real.warm_start.steps = {self.warm_start.steps}: the task"
                    ' "prompts" has no answers to learn from; 0 would do'
                )
        if self.evaluation.problems > self.task.held_out_problems:
            raise ConfigError(
                f"real.evaluation.problems = {self.evaluation.problems}: only"
                f" real.task.held_out_problems = {self.task.held_out_problems} are held out"
            )
        if self.device == "cpu" and self.server.kv_cache_tokens is None:
            raise ConfigError(
                'real.server.kv_cache_tokens: has to be set with real.device = "cpu", where no'
                " memory is set aside for it"
            )
        if self.warm_start.steps and self.warm_start.batch_sequences < self.trainer.data_parallel:
            raise ConfigError(
                f"real.warm_start.batch_sequences = {self.warm_start.batch_sequences}: fewer than"
                f" real.trainer.data_parallel = {self.trainer.data_parallel}"
            )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RealConfig(Section):
    """One real run. The table ``[limits]`` is the field `bounds`: `limits` makes the `Limits`.

    Raises:
        ConfigError: two sections contradict each other; the message begins with the key and says
            what would work.
    """

    ELSEWHERE: ClassVar[frozenset[str]] = frozenset({"model", "published", "sim"})

    cluster: ClusterConfig = table(ClusterConfig)
    workload: WorkloadConfig = table(WorkloadConfig)
    bounds: LimitsConfig = table(LimitsConfig, key="limits")
    scheduler: SchedulerConfig = table(SchedulerConfig)
    real: BackendConfig = table(BackendConfig)

    def _check(self) -> None:
        self._check_batch()
        self._check_context()
        self._check_gpus()
        if (model := self.model_shape()) is not None:
            self.check_model(model)
        self.new_scheduler()

    def _check_batch(self) -> None:
        trainer, batch = self.real.trainer, self.train_batch_rollouts
        parts = trainer.minibatches * trainer.data_parallel
        if batch % parts:
            raise ConfigError(
                f"real.trainer.minibatches = {trainer.minibatches}: a batch of"
                f" workload.prompts_per_step * group_size = {batch} trajectories cannot be divided"
                f" over minibatches * data_parallel = {parts}"
            )
        baseline = self.real.ppo.baseline
        if self.workload.group_size == 1 and baseline != "none":
            raise ConfigError(
                f"real.ppo.baseline = {toml_value(baseline)}: compares the answers to one prompt,"
                ' but workload.group_size = 1; "none" would do'
            )

    def _check_context(self) -> None:
        context = self.workload.max_context_tokens
        holders = {
            "real.trainer.micro_batch_tokens": self.real.trainer.micro_batch_tokens,
            "real.server.kv_cache_tokens": self.real.server.kv_cache_tokens,
        }
        for key, tokens in holders.items():
            if tokens is not None and tokens < context:
                raise ConfigError(
                    f"{key} = {tokens}: the longest trajectory, workload.max_prompt_tokens +"
                    f" max_response_tokens = {context}, must fit"
                )

    def _check_gpus(self) -> None:
        if self.real.device == "cpu":
            return
        per_node, has = self.cluster.gpus_per_node, self.cluster.gpus
        for key, parallel in (
            ("real.server.tensor_parallel", self.real.server.tensor_parallel),
            ("real.trainer.tensor_parallel", self.real.trainer.tensor_parallel),
        ):
            if per_node % parallel:
                raise ConfigError(
                    f"{key} = {parallel}: must divide cluster.gpus_per_node = {per_node}"
                )
        if self.gpus_needed > has:
            raise ConfigError(
                f"real.server.count = {self.real.server.count}: servers need"
                f" {self.real.server.gpus} GPUs and the trainer {self.real.trainer.world_size},"
                f" the cluster has cluster.nodes * gpus_per_node = {has}"
            )

    def check_model(self, model: ModelShape) -> None:
        """Hold the run against the sizes of its model.

        Raises:
            ConfigError: the heads or layers cannot be divided, or the context is too long.
        """
        for key, parallel, divides in (
            ("real.server.tensor_parallel", self.real.server.tensor_parallel, _server_divides),
            ("real.trainer.tensor_parallel", self.real.trainer.tensor_parallel, _trainer_divides),
        ):
            if not divides(model, parallel):
                usable = [n for n in range(1, model.num_heads + 1) if divides(model, n)]
                raise ConfigError(
                    f"{key} = {parallel}: must fit the {model.num_heads} attention heads,"
                    f" {model.num_kv_heads} KV heads and MLP width {model.intermediate_size} of"
                    f" {model.name}; would do: {', '.join(map(str, usable))}"
                )
        stages = self.real.trainer.pipeline_parallel
        if model.num_layers % stages:
            raise ConfigError(
                f"real.trainer.pipeline_parallel = {stages}: must divide the {model.num_layers}"
                f" layers of {model.name}"
            )
        self.workload.check_context(model)

    # ---- what the parts of a run are made from -------------------------------------------------

    def limits(self) -> Limits:
        """The bounds with the batch, as schedulers take them."""
        return self.bounds.limits(self.workload)

    def new_scheduler(self) -> Scheduler:
        """A fresh scheduler."""
        return self.scheduler.new(self.limits())

    def model_shape(self) -> ModelShape | None:
        """Sizes of the model in `real.model.path`; None for the task's own, or if it is not there.

        Raises:
            ConfigError: there is a ``config.json`` and it is not one of a supported model.
        """
        folder = self.real.model.path
        if folder is None or not (folder / "config.json").is_file():
            return None
        try:
            return ModelShape.from_hf_config(folder)
        except ConfigError as error:
            raise ConfigError(f"real.model.path: {error}") from None

    def missing_files(self) -> Iterator[tuple[str, Path]]:
        """Key and path of every file or folder the run needs and that is not there."""
        task, model = self.real.task, self.real.model
        wanted = {
            "real.model.path": None if model.path is None else model.path / "config.json",
            "real.task.file": task.file,
            "real.task.held_out_file": task.held_out_file,
            "real.task.tokenizer": task.tokenizer,
        }
        for key, path in wanted.items():
            if path is not None and not path.exists():
                yield key, path

    # ---- counts --------------------------------------------------------------------------------

    @property
    def train_batch_rollouts(self) -> int:
        """Trajectories of one training step, B in the paper."""
        return self.workload.train_batch_rollouts

    @property
    def gpus_needed(self) -> int:
        """GPUs of servers and trainer together; 0 on the CPU."""
        if self.real.device == "cpu":
            return 0
        return self.real.server.gpus + self.real.trainer.world_size


def _server_divides(model: ModelShape, parallel: int) -> bool:
    """Whether SGLang can cut the model so: with fewer KV heads than GPUs it repeats them."""
    try:
        model.check_tensor_parallel(parallel)
    except ConfigError:
        return False
    return model.intermediate_size % parallel == 0


def _trainer_divides(model: ModelShape, parallel: int) -> bool:
    """Whether the trainer can cut the model so: every rank has whole KV heads of its own."""
    return model.num_kv_heads % parallel == 0 and _server_divides(model, parallel)
