"""Training steps of a benchmark of trainers, against the roofline's trainer.

    python -m benchmarks.trainer_mfu

Each row is a training step of prime-rl (FSDP): on every GPU two micro-batches of one sequence each.
The time compared is that of the step; the roofline's ``step_overhead_s`` (data movement, logging)
is not in it and is left out. Nothing is fitted: the default ``training_efficiency`` comes from the
AReaL paper's figure 6a.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from areal_sim.costs import Factors, Roofline, train_ranks_s
from areal_sim.hardware import Cluster, ServerLayout, TrainerLayout, gpu
from benchmarks.measured import Case, Report, Row, command, read_rows
from benchmarks.shapes import shape

STEPS = Path("measured/prime_rl_trainer_benchmarks.csv")

SHAPE_OF = {"Qwen/Qwen3-0.6B": "qwen3-0.6b", "Qwen/Qwen3-4B-Instruct-2507": "qwen3-4b"}
"""Models of the file, and names in `benchmarks.shapes`."""
GPU_OF = {"NVIDIA H100 80GB HBM3": "H100", "NVIDIA H200": "H200", "NVIDIA B200": "B200"}
"""Devices of the file, and names in `areal_sim.hardware`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One training step.

    Attributes:
        name: for the table.
        model: a name in `benchmarks.shapes`.
        gpu: a name in `areal_sim.hardware`.
        gpus: how many, all of them data parallel.
        sequence_tokens: tokens of a micro-batch, one sequence.
        micro_batches: on each GPU.
        step_s: measured.
    """

    name: str
    model: str
    gpu: str
    gpus: int
    sequence_tokens: int
    micro_batches: int
    step_s: float

    def predicted_s(self, factors: Factors) -> float:
        """Micro-batches and the optimizer, in seconds."""
        layout = TrainerLayout(data_parallel=self.gpus, micro_batch_tokens=self.sequence_tokens)
        cost = Roofline(
            # One node: the network is not used.
            cluster=Cluster(gpu=gpu(self.gpu), nodes=1, network_bytes_per_s_per_node=1.0),
            model=shape(self.model),
            server_layout=ServerLayout(),
            trainer_layout=layout,
            factors=factors,
        ).trainer()
        tokens = [self.sequence_tokens] * self.micro_batches
        [time_s], _ = train_ranks_s(cost, [tokens], [[n * n for n in tokens]])
        return time_s + cost.optimizer_s


def why_not(row: Row) -> str | None:
    """Why a row cannot be compared; None if it can."""
    if row.text("success") != "True":
        return "the run failed"
    if row.text("model_name") not in SHAPE_OF:
        return "a mixture of experts: not modelled"
    if row.text("device_name") not in GPU_OF:
        return f"{row.text('device_name')} is not in areal_sim.hardware"
    if row.text("lora_rank"):
        return "LoRA: not modelled"
    if row.text("ac") != "Recompute":
        return "activations move to host memory: not modelled"
    return None


def step_of(row: Row) -> Step:
    """A row of the file that can be compared.

    Raises:
        DataError: a number is none.
    """
    device, model = GPU_OF[row.text("device_name")], SHAPE_OF[row.text("model_name")]
    gpus, tokens = int(row.positive("num_gpus")), int(row.positive("seq_len"))
    return Step(
        name=f"{model} {row.text('type')}, {gpus} {device}, {tokens:,} tokens",
        model=model,
        gpu=device,
        gpus=gpus,
        sequence_tokens=tokens,
        micro_batches=int(row.positive("micro_batches")),
        step_s=row.positive("step_time.mean"),
    )


def compare(data: Path) -> Report:
    """Every dense row with full training on a known GPU.

    Args:
        data: folder of the measured cases.

    Raises:
        DataError: the rows cannot be read.
    """
    columns = (
        *("type", "num_gpus", "model_name", "lora_rank", "seq_len", "ac", "micro_batches"),
        *("device_name", "success", "step_time.mean"),
    )
    steps, left_out = [], Counter[str]()
    for row in read_rows(data / STEPS, columns):
        if (reason := why_not(row)) is None:
            steps.append(step_of(row))
        else:
            left_out[reason] += 1
    factors = Factors()
    return Report(
        title="training steps of prime-rl",
        cases=[
            Case(s.name, f"step on {s.gpu} (s)", s.step_s, s.predicted_s(factors), fitted=False)
            for s in steps
        ],
        left_out=[(f"{count} rows", reason) for reason, count in left_out.items()],
        remarks=[f"training_efficiency is the default, {factors.training_efficiency:g}"],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table.

    Args:
        arguments: command line; the process's own by default.

    Returns:
        0, or 2 where the measured cases are missing or malformed.
    """
    return command("trainer_mfu", __doc__, compare, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
