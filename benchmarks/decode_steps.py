"""Decode steps composed from measured kernels, against the roofline's decode step.

    python -m benchmarks.decode_steps

A cell is one decode step of a batch in which every sequence has the same context, on one server of
some tensor parallelism. The measured kernels leave out norms, rotary embedding, sampling and the
engine's own work, so the roofline's two overheads are set to 0 here. Cells whose KV cache would not
fit into the GPUs are left out: they could never run.

The defaults of the roofline are fitted to the H100 cells; H200 and A100 are predicted. A100 is
compared a second time with one factor fitted on every fifth of its cells.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from areal_sim.costs import Factors, Roofline, ServerCost, decode_time_fs
from areal_sim.costs.protocol import FS_PER_S
from areal_sim.hardware import Cluster, ServerLayout, TrainerLayout, gpu
from areal_sim.memory import DoesNotFit, server_memory
from areal_sim.models import load_model
from benchmarks.measured import Case, DataError, Fit, Report, Row, command, read_rows

CELLS = Path("measured/decode_step_ms_composed.csv")

GPU_OF = {"h100_sxm": "H100", "h200_sxm": "H200", "a100_sxm": "A100-80GB"}
"""Systems of the file, and names in `areal_sim.hardware`. The A100 cells are of the 80 GB card."""

FITTED_SYSTEM = "h100_sxm"
"""What the defaults of the decode factors are fitted to; see `areal_sim.costs.constants`."""
SLOW_SYSTEM = "a100_sxm"
FIT_EVERY = 5
"""Every fifth cell of it that fits, from the first on, in the order of the file."""

MEMORY_FRACTION = 0.9
"""Share of GPU memory for weights and KV cache: the largest in use, so that few cells are lost."""

DIFFERENCE = 1e-3
"""Relative step of the solver's derivatives: well above the rounding to whole femtoseconds."""

NO_OVERHEAD = Factors(server_step_overhead_s=0.0, server_rollout_overhead_s=0.0)


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One decode step: of how many rollouts, with how many KV tokens together, in what time."""

    system: str
    model: str
    tensor_parallel: int
    rollouts: int
    kv_tokens: int
    step_ms: float

    @property
    def name(self) -> str:
        """For the table."""
        context = self.kv_tokens // self.rollouts
        return f"{self.model} tp {self.tensor_parallel}, {self.rollouts} x {context:,}"

    def predicted_ms(self, factors: Factors) -> float:
        """The roofline's step, in milliseconds."""
        cost = server_cost(self.system, self.model, self.tensor_parallel, factors)
        return decode_time_fs(cost, self.rollouts, self.kv_tokens, 1) / FS_PER_S * 1e3


@cache
def server_cost(system: str, model: str, tensor_parallel: int, factors: Factors) -> ServerCost:
    """Coefficients of a server within one node."""
    return Roofline(
        # One node: the network is not used.
        cluster=Cluster(gpu=gpu(GPU_OF[system]), nodes=1, network_bytes_per_s_per_node=1.0),
        model=load_model(model),
        server_layout=ServerLayout(tensor_parallel=tensor_parallel),
        trainer_layout=TrainerLayout(),
        factors=factors,
    ).server()


@cache
def kv_capacity(system: str, model: str, tensor_parallel: int) -> int:
    """KV tokens that fit on a server; 0 if the weights do not."""
    layout = ServerLayout(tensor_parallel=tensor_parallel, static_memory_fraction=MEMORY_FRACTION)
    try:
        return server_memory(gpu(GPU_OF[system]), load_model(model), layout).kv_cache_tokens
    except DoesNotFit:
        return 0


def cell_of(row: Row) -> Cell:
    """A row of the file.

    Raises:
        DataError: the system is not known, or a number is none.
    """
    if (system := row.text("system")) not in GPU_OF:
        raise DataError(f"{row.where}: column 'system': {system!r}: no such system")
    batch = int(row.positive("batch"))
    return Cell(
        system=system,
        model=row.text("model"),
        tensor_parallel=int(row.positive("tp")),
        rollouts=batch,
        kv_tokens=batch * int(row.positive("ctx")),
        step_ms=row.positive("step_ms"),
    )


def fit_kv_efficiency(cells: Sequence[Cell]) -> float:
    """``decode_kv_bandwidth_efficiency`` with the smallest squared relative errors."""

    def errors(values: NDArray[np.float64]) -> NDArray[np.float64]:
        factors = with_kv_efficiency(float(values[0]))
        return np.array([cell.predicted_ms(factors) / cell.step_ms - 1 for cell in cells])

    start = [NO_OVERHEAD.decode_kv_bandwidth_efficiency]
    found = least_squares(errors, start, bounds=(0.05, 1.0), diff_step=[DIFFERENCE])
    return float(found.x[0])


def with_kv_efficiency(value: float) -> Factors:
    """The factors used here, with another efficiency of reading the KV cache."""
    return dataclasses.replace(NO_OVERHEAD, decode_kv_bandwidth_efficiency=value)


def compare(data: Path) -> Report:
    """Every cell that fits.

    Args:
        data: folder of the measured cases.

    Raises:
        DataError: the cells cannot be read.
    """
    columns = ("system", "model", "tp", "batch", "ctx", "step_ms")
    fitting, too_large = [], Counter[str]()
    for cell in map(cell_of, read_rows(data / CELLS, columns)):
        if cell.kv_tokens <= kv_capacity(cell.system, cell.model, cell.tensor_parallel):
            fitting.append(cell)
        else:
            too_large[cell.system] += 1
    cases = [
        Case(
            cell.name,
            f"{cell.system} step (ms)",
            cell.step_ms,
            cell.predicted_ms(NO_OVERHEAD),
            fitted=cell.system == FITTED_SYSTEM,
        )
        for cell in fitting
    ]
    fits = [Fit("decode factors", "the defaults of areal_sim.costs", f"the {FITTED_SYSTEM} cells")]
    slow = [cell for cell in fitting if cell.system == SLOW_SYSTEM]
    if slow:
        efficiency = fit_kv_efficiency(slow[::FIT_EVERY])
        factors = with_kv_efficiency(efficiency)
        cases += [
            Case(
                cell.name,
                f"{SLOW_SYSTEM} step, one factor fitted (ms)",
                cell.step_ms,
                cell.predicted_ms(factors),
                fitted=number % FIT_EVERY == 0,
            )
            for number, cell in enumerate(slow)
        ]
        rows = f"every fifth of the {len(slow)} {SLOW_SYSTEM} cells"
        fits.append(Fit("decode_kv_bandwidth_efficiency", f"{efficiency:.2f}", rows))
    return Report(
        title="decode steps composed from measured kernels, without engine overhead",
        cases=cases,
        fits=fits,
        left_out=[
            (f"{count} cells of {system}", "weights and KV cache do not fit")
            for system, count in sorted(too_large.items())
        ],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table.

    Args:
        arguments: command line; the process's own by default.

    Returns:
        0, or 2 where the measured cases are missing or malformed.
    """
    return command("decode_steps", __doc__, compare, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
