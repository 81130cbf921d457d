"""The sections ``[cluster]`` and ``[model]``."""

# ruff: noqa: RUF009 - these calls make fields, not values

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

from areal_sched.config.options import Section, flag, number, path, string, toml_value, whole
from areal_sched.config.sections import one_of
from areal_sched.errors import ConfigError, nearest
from areal_sim.hardware import Cluster, gpu
from areal_sim.models import ALIASES, ModelShape, load_model, model_names
from areal_sim.power import POWER_USAGE_EFFECTIVENESS

DEFAULT_GENERATION_SHARE = 0.75
"""AReaL paper (arXiv 2505.24298), experiment setup: 75 % of the GPUs generate, 25 % train."""

PAPER_NETWORK_BYTES_PER_S = 400e9
"""Same place: RoCE with 3.2 Tbit/s a node."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig(Section):
    """The GPUs that are rented, and who gets them: either `generation_share` or `colocated`."""

    TABLE: ClassVar[str] = "cluster"
    NOTE: ClassVar[str] = """\
`round(gpus * generation_share / t) * t` GPUs generate, where `t` is `sim.server.tensor_parallel`;
half a server is rounded up. Of the others the trainer takes the largest multiple of
`sim.trainer.tensor_parallel * sim.trainer.pipeline_parallel`. Colocated, both take the largest
multiple of all GPUs. GPUs left over stay unused, but GPU-hours, cost and energy count all GPUs of
the cluster.

Watts and price change nothing in a run, only its `cost_usd` and `energy_kwh`:
[cost and energy](../guides/cost-and-energy.md). The kind of GPU does not matter where times and
room were measured, with `sim.cost.provider = "fitted"` and both `sim.server.kv_cache_tokens` and
`max_running_rollouts`; there, what is not set is unknown.
"""

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
    busy_watts: float | None = number(
        "power of one GPU that works",
        None,
        unit="W",
        above=0,
        optional=True,
        otherwise="`gpu`'s board power, an upper bound",
    )
    idle_watts: float | None = number(
        "power of one GPU that waits, at most `busy_watts`",
        None,
        unit="W",
        least=0,
        optional=True,
        otherwise="`gpu`'s, with a model loaded",
    )
    host_watts_per_gpu: float | None = number(
        "power of processors, memory, fans and network of a node, by GPU",
        None,
        unit="W",
        least=0,
        optional=True,
        otherwise="that of nodes with such a `gpu`",
    )
    power_usage_effectiveness: float = number(
        "power of the site over power of its nodes; the default leaves cooling out",
        POWER_USAGE_EFFECTIVENESS,
        unit="1",
        least=1,
    )
    usd_per_gpu_hour: float | None = number(
        "rent of one GPU, used or not, electricity included",
        None,
        unit="USD/h",
        least=0,
        optional=True,
        otherwise="`gpu`'s list price",
    )

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

    def power(self, *, gpu_counts: bool = True) -> dict[str, float | None]:
        """Watts and price of one GPU as a journal's header states them, under ``run.power``.

        Args:
            gpu_counts: what is not set is taken from `gpu`; otherwise it is None, unknown.
        """
        card = gpu(self.gpu)
        of_gpu = {
            "busy_watts": card.busy_watts,
            "idle_watts": card.idle_watts,
            "host_watts_per_gpu": card.host_watts,
            "usd_per_gpu_hour": card.usd_per_hour,
        }
        power: dict[str, float | None] = {}
        for name, default in of_gpu.items():
            given = getattr(self, name)
            power[name] = default if given is None and gpu_counts else given
        return {**power, "power_usage_effectiveness": self.power_usage_effectiveness}


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
