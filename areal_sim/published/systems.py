"""A configuration for each run of the paper: three systems, four models, one set of costs.

What the paper says of its cluster and its layouts is here, and so is what it leaves open
(`paper_figs.assumptions` lists that, with what depends on it). ``configs/paper`` holds
`toml_of` of each, so that they can be read, run and changed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from areal_sim.config import RunConfig, load_config, parse_config
from areal_sim.memory import OPTIMIZER_BYTES, PARAMETER_BYTES
from areal_sim.models import load_model
from areal_sim.published.calibration import FOLDER, Values
from areal_sim.published.rows import LABELS, SOURCE, SYSTEMS, TABLE_1, Row, System

GPUS_PER_NODE = 8
PRESETS = {"math": "math-1.5b-deepscaler-mean", "code": "code-14b"}
"""Lengths of answers by task, before they are scaled: the same for every model of a task."""

ETA = {"math": 8, "code": 4}
"""Staleness bound of AReaL, by task."""

CHECKPOINT_BYTES = PARAMETER_BYTES + OPTIMIZER_BYTES
"""Bytes of a checkpoint for each parameter."""

CHECKPOINT_EVERY_S = 600
"""The released system's launch scripts: after a step, if this has passed since the last one."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How one model lies on its GPUs.

    Attributes:
        server_tensor_parallel, static_memory_fraction: of a server.
        tensor_parallel, pipeline_parallel: of the trainer.
        published: whether the paper gives this layout.
    """

    server_tensor_parallel: int
    static_memory_fraction: float
    tensor_parallel: int
    pipeline_parallel: int
    published: bool = True


LAYOUTS: dict[str, Layout] = {
    "1.5b": Layout(1, 0.8, 1, 2),
    "7b": Layout(1, 0.7, 1, 4),
    "14b": Layout(4, 0.7, 2, 4, published=False),
    "32b": Layout(8, 0.7, 2, 8),
}


def row_of(model: str) -> Row:
    """The row of Table 1 of a model."""
    return next(row for row in TABLE_1 if row.model == model)


def toml_of(model: str, system: System, values: Values) -> str:
    """The configuration of one cell of Table 1, as the text of a TOML file."""
    row, layout = row_of(model), LAYOUTS[model]
    areal = system == "areal"
    ratio = values["verl_overhead_ratio"] if system == "verl" else 1.0
    share = "generation_share = 0.75" if areal else "colocated = true"
    note = (
        ""
        if layout.published
        else (
            "# The layout of the 14B run is not published; this one lies between 7B's and 32B's.\n"
        )
    )
    disk = values["disk_bytes_per_s"]
    shape = load_model(f"r1-distill-qwen-{model}")
    # verl's hours are estimates from its throughput: no checkpoint is in them.
    save_s = 0.0 if system == "verl" else shape.parameters * CHECKPOINT_BYTES / disk
    switch = "" if system != "sync" else f"switch_overhead_s = {values['sync_switch_s']:.4g}\n"
    resume = '\nresume_after = "evaluation"' if areal else ""
    return f"""\
# Paper, {LABELS[system]}, {model.upper()} {row.task}, {row.nodes * GPUS_PER_NODE} H800. \
Run: areal-sim run configs/paper/{file_name(model, system)}
# Source: {SOURCE}, table 1 and training settings. Written by areal-sim calibrate-published.
# It publishes no response lengths: where the preset's come from is in traces.presets.
{note}
[cluster]
gpu = "H800"
nodes = {row.nodes}
gpus_per_node = {GPUS_PER_NODE}
{share}

[model]
name = "r1-distill-qwen-{model}"

[workload]
preset = "{PRESETS[row.task]}"
length_scale = {values[f"{row.task}_length_scale"]:.4g}
prompts_per_step = 512
group_size = 16
max_prompt_tokens = 1024
max_response_tokens = 27_648
steps = {row.steps}

[limits]
eta = {ETA[row.task] if areal else 0}
max_rollouts_in_flight = 8192

[scheduler]
class = "{"areal" if areal else "synchronous"}"{resume}

[sim.server]
tensor_parallel = {layout.server_tensor_parallel}
static_memory_fraction = {layout.static_memory_fraction}

[sim.trainer]
tensor_parallel = {layout.tensor_parallel}
pipeline_parallel = {layout.pipeline_parallel}
minibatches = 4
micro_batch_tokens = 32_768

[sim.evaluation]
# A checkpoint to recover from: weights, master weights and both moments, 14 bytes a parameter.
save_s = {save_s:.4g}
every_s = {CHECKPOINT_EVERY_S}

[sim.cost]
# Fitted to the 1.5B and 14B rows of table 1 and to figure 6a, together with length_scale; the same
# for every model. See areal_sim/published/calibration.toml.
server_layer_overhead_s = {ratio * values["server_layer_overhead_s"]:.4g}
tensor_parallel_wait_s = {ratio * values["tensor_parallel_wait_s"]:.4g}
training_efficiency = {values["training_efficiency"]:.4g}
forward_efficiency = {values["training_efficiency"]:.4g}
{switch}disk_write_bytes_per_s = {disk:.4g}
disk_read_bytes_per_s = {disk:.4g}

[published]
hours = {row.hours[system]}
steps = {row.steps}
label = "{LABELS[system]}, {SOURCE} table 1"
"""


def file_name(model: str, system: System) -> str:
    """The file in ``configs/paper``."""
    return f"{model}-{system}.toml"


def config_of(
    model: str, system: System, changes: Sequence[str] = (), values: Values | None = None
) -> RunConfig:
    """The configuration of one run.

    Args:
        model: ``1.5b``, ``7b``, ``14b`` or ``32b``.
        system: whose.
        changes: ``key=value``, as for ``--set``.
        values: other costs than the fitted ones that ``configs/paper`` holds.
    """
    if values is None:
        return load_config(FOLDER / file_name(model, system), list(changes))
    return parse_config(toml_of(model, system, values), overrides=list(changes))


def files_of(values: Values) -> dict[str, str]:
    """The configuration of every cell of Table 1, by its file's name."""
    return {
        file_name(row.model, system): toml_of(row.model, system, values)
        for row in TABLE_1
        for system in SYSTEMS
    }
