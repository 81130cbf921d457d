"""One TOML file per run, read into frozen dataclasses.

`load_config` reads a file and ``--set`` overrides into a `RunConfig`, `resolved_toml` writes it
with every default, `config_sha256` is its identity. What each key means is on the page
``docs/reference/configuration.md``, which is made from the same descriptions that check the values.
"""

from areal_sched.config.sections import LimitsConfig, SchedulerConfig
from areal_sched.config.write import config_sha256, resolved_toml
from areal_sim.config.placement import Placement
from areal_sim.config.read import load_config, parse_config
from areal_sim.config.reference import reference_page
from areal_sim.config.run import RunConfig
from areal_sim.config.shared import ClusterConfig, ModelConfig
from areal_sim.config.simulation import (
    CostConfig,
    EvaluationConfig,
    FaultsConfig,
    PublishedConfig,
    RewardsConfig,
    ServerConfig,
    SimConfig,
    TrainerConfig,
    WeightsConfig,
)
from areal_sim.config.workload import LengthConfig, PromptLengthConfig, WorkloadConfig

__all__ = [
    "ClusterConfig",
    "CostConfig",
    "EvaluationConfig",
    "FaultsConfig",
    "LengthConfig",
    "LimitsConfig",
    "ModelConfig",
    "Placement",
    "PromptLengthConfig",
    "PublishedConfig",
    "RewardsConfig",
    "RunConfig",
    "SchedulerConfig",
    "ServerConfig",
    "SimConfig",
    "TrainerConfig",
    "WeightsConfig",
    "WorkloadConfig",
    "config_sha256",
    "load_config",
    "parse_config",
    "reference_page",
    "resolved_toml",
]
