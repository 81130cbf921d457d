"""The fitted numbers of the paper's cluster, with priors, and the file they are kept in.

One set of eight numbers serves every model, system and figure. `areal-sim calibrate-published`
fits them (`areal_sim.published.fit`) and writes ``calibration.toml`` beside this file, and the
configurations in ``configs/paper`` that hold them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "paper"
FILE = Path(__file__).with_name("calibration.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One number that is fitted.

    Attributes:
        name: a factor of `areal_sim.costs.constants.Factors`, or one of our own.
        unit: of the value.
        prior: what one would take without the paper's hours.
        spread: one standard deviation of the prior, as a factor: 2 means half to twice.
        source: where the prior comes from.
        meaning: what it stands for.
    """

    name: str
    unit: str
    prior: float
    spread: float
    source: str
    meaning: str


PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        name="server_layer_overhead_s",
        unit="s",
        prior=0.3e-3,
        spread=2.0,
        source="some 15 kernels a layer, launched one by one from Python at 10 to 30 us",
        meaning="a decode step of AReaL's servers, per layer, beyond kernels",
    ),
    Parameter(
        name="tensor_parallel_wait_s",
        unit="s",
        prior=100e-6,
        spread=3.0,
        source="an all-reduce waits for the last of its ranks, each late by some launches",
        meaning="an all-reduce of AReaL's servers, beyond kernels",
    ),
    Parameter(
        name="verl_overhead_ratio",
        unit="1",
        prior=1.0,
        spread=1.5,
        source="both drive SGLang 0.4.6",
        meaning="both of the above for verl's servers, relative to AReaL's",
    ),
    Parameter(
        name="training_efficiency",
        unit="1",
        prior=0.38,
        spread=1.2,
        source="Megatron-Core on H100 reaches 41 to 48 % of peak in pre-training",
        meaning="peak compute reached in forward and backward of the trainer",
    ),
    Parameter(
        name="sync_switch_s",
        unit="s",
        prior=10.0,
        spread=3.0,
        source="published colocated steps leave 11 to 19 s beside their named phases (8 GPUs)",
        meaning="sync.AReaL: from generation to training, and the same back, each step",
    ),
    Parameter(
        name="disk_bytes_per_s",
        unit="byte/s",
        prior=1.5e9,
        spread=2.0,
        source="a shared file system over the network, written and read by many",
        meaning="weights and checkpoints to and from the shared file system",
    ),
    Parameter(
        name="math_length_scale",
        unit="1",
        prior=1.0,
        spread=1.15,
        source="published mean lengths of AReaL's earlier math runs (`traces.presets`)",
        meaning="math answers, times the preset's lengths",
    ),
    Parameter(
        name="code_length_scale",
        unit="1",
        prior=1.0,
        spread=1.5,
        source="nothing is published; the preset is a guess from that run's own step times",
        meaning="code answers, times the preset's lengths",
    ),
)
"""At most eight, none for a single model or row."""

Values = Mapping[str, float]
"""Values of `PARAMETERS` by name."""

NAMES = tuple(parameter.name for parameter in PARAMETERS)
