"""How long new weights take to the servers, against the roofline's transfer model.

    python -m benchmarks.weight_sync

Published transfers from trainer to servers over the network, each with what was moved and by what
method. The model is `areal_sim.costs.Roofline` with ``weight_transfer = "collective"``: two fixed
overheads, and the weights at the rate of one broadcast, at most the network's. Its rate is fitted
to the three dense Qwen2.5 rows on H100 in its defaults already; nothing else is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from areal_sim.costs import Factors, Roofline
from areal_sim.hardware import Cluster, ServerLayout, TrainerLayout, gpu
from areal_sim.models import ModelShape
from benchmarks.measured import Case, Fit, Report, Row, command, read_rows

TIMES = Path("measured/weight_sync_times.csv")

GPUS_PER_NODE = 8
NETWORK_BYTES_PER_S_PER_NODE = 400e9
"""Assumed where nothing is said: 8 links of 400 Gbit/s a node, as in the AReaL paper's cluster."""

GPU_OF = {"H20": "H20", "H100": "H100", "H800": "H800", "A100/A800": "A100-80GB"}
"""Names in the file, and those in `areal_sim.hardware`."""

WEIGHT_BYTES: dict[str, float] = {
    "Qwen2.5-Math-7B": 7.62e9 * 2,
    "Qwen2.5-7B": 7.62e9 * 2,
    "Qwen2.5-32B": 32.76e9 * 2,
    "Qwen2.5-72B": 72.71e9 * 2,
    "Qwen3-8B": 8.19e9 * 2,
    "Qwen3-30B-A3B": 30.53e9 * 2,
    "Qwen3-235B-A22B": 235.09e9 * 2,
    "Qwen3-235B bf16": 235.09e9 * 2,
    "GLM-4.5-Air bf16": 106e9 * 2,
    "DeepSeek-V3.1 fp8": 671e9,
    "Kimi-K2 fp8": 1.0e12,
}
"""Bytes of the weights: parameters on the model cards, times 2 in bf16 and 1 in fp8 (scales, and
what is kept in bf16, left out)."""

FITTED_ROWS = {("Qwen2.5-7B", "H100"), ("Qwen2.5-32B", "H100"), ("Qwen2.5-72B", "H100")}
"""What the default of ``broadcast_bytes_per_s`` is fitted to; see `areal_sim.costs.constants`."""


@dataclasses.dataclass(frozen=True, slots=True)
class WeightsOnly:
    """All that the transfer model asks of a model that is moved as it is.

    Mixtures of experts have no `ModelShape`, but their weights are bytes like any other's.
    """

    weight_bytes: int

    def check_tensor_parallel(self, tensor_parallel: int) -> None:
        """Anything does."""


def predicted_s(row: Row) -> float:
    """Publish and load by broadcast, in seconds.

    Args:
        row: of the file; its model and hardware must be known here.
    """
    trainer, servers = int(row.positive("train_gpus")), int(row.positive("rollout_gpus"))
    cluster = Cluster(
        gpu=gpu(GPU_OF[row.text("hardware")]),
        nodes=-(-(trainer + servers) // GPUS_PER_NODE),
        gpus_per_node=GPUS_PER_NODE,
        network_bytes_per_s_per_node=NETWORK_BYTES_PER_S_PER_NODE,
    )
    costs = Roofline(
        cluster=cluster,
        model=cast(ModelShape, WeightsOnly(round(WEIGHT_BYTES[row.text("model")]))),
        server_layout=ServerLayout(),
        # The trainers of these rows shard their weights over all of their GPUs.
        trainer_layout=TrainerLayout(tensor_parallel=trainer),
        servers=servers,
        weight_transfer="collective",
    )
    return costs.weight_publish_s() + costs.weight_load_s()


def compare(data: Path) -> Report:
    """Every row whose model and GPU are known.

    Args:
        data: folder of the measured cases.

    Raises:
        DataError: the cases cannot be read.
    """
    columns = ("model", "train_gpus", "rollout_gpus", "hardware", "method", "seconds")
    cases, left_out = [], []
    for row in read_rows(data / TIMES, columns):
        model, hardware, method = (row.text(name) for name in ("model", "hardware", "method"))
        counts = f"{row.text('train_gpus')}+{row.text('rollout_gpus')}"
        name = f"{model}, {counts} {hardware}"
        if model not in WEIGHT_BYTES or hardware not in GPU_OF:
            missing = f"model {model}" if model not in WEIGHT_BYTES else f"GPU {hardware}"
            left_out.append((name, f"{missing} is not known here"))
            continue
        fitted = (model, hardware) in FITTED_ROWS
        cases.append(
            Case(name, quantity_of(method), row.positive("seconds"), predicted_s(row), fitted)
        )
    factors = Factors()
    return Report(
        title="weights from trainer to servers, by broadcast",
        cases=cases,
        fits=[
            Fit(
                "broadcast_bytes_per_s",
                f"{factors.broadcast_bytes_per_s / 1e9:g} GB/s (the default)",
                "Qwen2.5 7B, 32B and 72B on H100",
            )
        ],
        left_out=left_out,
        remarks=[
            f"assumed: overheads of {factors.weight_publish_overhead_s:g} s and"
            f" {factors.weight_load_overhead_s:g} s, the defaults, and a network of"
            f" {NETWORK_BYTES_PER_S_PER_NODE / 1e9:g} GB/s a node"
        ],
    )


def quantity_of(method: str) -> str:
    """What was timed: the methods are too different for one median."""
    return f"{method} (s)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table.

    Args:
        arguments: command line; the process's own by default.

    Returns:
        0, or 2 where the measured cases are missing or malformed.
    """
    return command("weight_sync", __doc__, compare, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
