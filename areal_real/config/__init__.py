"""The configuration of a real run: one TOML file, read into frozen dataclasses.

`load_config` reads a file and ``--set`` overrides into a `RealConfig`, `resolved_toml` writes it
with every default, `config_sha256` is its identity. The file may be read by `areal-sim` too: what
only a simulation needs is passed over. Nothing here imports torch.
"""

from areal_real.config.read import load_config, parse_config
from areal_real.config.run import BackendConfig, RealConfig
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
from areal_sched.config.sections import LimitsConfig, SchedulerConfig
from areal_sched.config.write import config_sha256, differences, resolved_toml

__all__ = [
    "BackendConfig",
    "ClusterConfig",
    "EvaluationConfig",
    "LimitsConfig",
    "ModelConfig",
    "PpoConfig",
    "RealConfig",
    "RewardsConfig",
    "SchedulerConfig",
    "ServerConfig",
    "TaskConfig",
    "TrainerConfig",
    "WarmStartConfig",
    "WorkloadConfig",
    "config_sha256",
    "differences",
    "load_config",
    "parse_config",
    "resolved_toml",
]
