"""When the requests of 49 served batches finish, against the simulated engine.

    python -m benchmarks.completion_curves

A batch is one evaluation run: all requests are there at the start, and the time at which each
finished is known, with the tokens it had. The runs are those of the open-rs logs (vLLM on one A40,
R1-Distill-Qwen-1.5B). Their lengths go through `areal_sim.engine.Engine` with the roofline costs of
that GPU. Three numbers are fitted on every fifth run in the order of the file: two overheads of the
engine, and how much earlier longer answers were submitted. The rest is predicted.

Lengths are given to the engine. Finish times of the runs that were not fitted are only compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from areal_sim.costs import Factors, Roofline, ServerCost
from areal_sim.costs.protocol import FS_PER_S
from areal_sim.engine import Engine, Request
from areal_sim.hardware import Cluster, ServerLayout, TrainerLayout, gpu
from areal_sim.memory import server_memory
from areal_sim.models import load_model
from benchmarks.measured import Case, DataError, Fit, Report, command, read_rows, summary_line

RUNS = Path("measured/openrs_vllm_eval_runs_A40_dev.csv")
REQUESTS = Path("traces/lengths/openrs_vllm_completion_dev.csv")

FIT_EVERY = 5
"""Every fifth run, from the first on, in the order of the file of runs: 10 of 49."""

POINTS = {"time to 50 % (s)": 0.5, "time to 90 % (s)": 0.9, "time to finish (s)": 1.0}
"""Shares of a run's requests that are finished; all three are fitted to, with equal weight."""

GPU = "A40"
MODEL = "r1-distill-qwen-1.5b"

MEMORY_FRACTION = 0.8
"""``gpu_memory_utilization`` in the evaluation command of the open-rs README."""
MAX_RUNNING = 256
"""``max_num_seqs``: default of vLLM 0.7.2, the version that README installs."""
STEP_TOKENS = 32_768
"""``max_num_batched_tokens``: vLLM 0.7 takes the longest context where prefill is not chunked."""
RESERVE_TOKENS = 1
"""vLLM admits a request where its prompt fits; it keeps nothing free for those that run."""
PROMPT_TOKENS = 150
"""Assumed: the logs do not tell. About 75 tokens of instruction and a problem of about as many."""
EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
"""Tried for the order of submission, see `submitted`; the best on the fitted runs is taken.

It matters only where requests wait. The logs do not tell the order. The evaluation program
(lighteval, ``GenerativeTaskDataset``) submits the longest *prompts* first, and harder problems tend
to have longer prompts and longer answers. So it is neither random nor by length.
"""
ORDER_SEED = 1
"""Of what is random in the order."""

START = (2.5e-3, 20e-6)
"""Where the fit begins: the defaults of the two factors in `areal_sim.costs.Factors`, seconds."""
LOWEST = (0.0, 0.0)
HIGHEST = (0.1, 0.01)
SCALE = (1e-3, 1e-4)
"""Sizes that make the two comparable for the solver."""
DIFFERENCE = 1e-3
"""Relative step of its derivatives: well above the jumps of whole decode steps."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was fitted.

    Attributes:
        overhead_s: ``server_step_overhead_s``.
        rollout_overhead_s: ``server_rollout_overhead_s``.
        exponent: see `submitted`.
        squared_error: sum of the squared relative errors that was minimised.
    """

    overhead_s: float
    rollout_overhead_s: float
    exponent: float
    squared_error: float

    def predict_s(self, tokens: NDArray[np.int64], kv_cache_tokens: int) -> NDArray[np.float64]:
        """`points_s` of a batch in the simulated engine."""
        cost = cost_of(self.overhead_s, self.rollout_overhead_s)
        order = submitted(tokens, self.exponent)
        return points_s(finish_times_s(cost, tokens[order], kv_cache_tokens))


@dataclass(frozen=True, slots=True)
class Run:
    """One served batch.

    Attributes:
        name: dataset and number.
        tokens: output tokens of each request, shape (requests,).
        finish_s: when they finished, ascending, seconds since the start, shape (requests,).
    """

    name: str
    tokens: NDArray[np.int64]
    finish_s: NDArray[np.float64]


def read_runs(data: Path) -> list[Run]:
    """All runs, in the order of the file of runs.

    Requests that one line of the log reported together (``merged_count`` above 1) are one row each
    in the file already; they share their finish time.

    Raises:
        DataError: a file is missing or malformed, or the two disagree on a run's requests.
    """
    listed = read_rows(data / RUNS, ("dataset", "run", "n", "T"))
    rows = read_rows(data / REQUESTS, ("dataset", "run", "tokens_est", "finish_time_s"))
    requests: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in rows:
        key = (row.text("dataset"), row.text("run"))
        pair = (row.positive("tokens_est"), row.positive("finish_time_s"))
        requests.setdefault(key, []).append(pair)
    runs = []
    for row in listed:
        key = (row.text("dataset"), row.text("run"))
        own = requests.get(key, [])
        name = f"{key[0].removeprefix('openrs_eval_')} {key[1]}"
        if len(own) != row.positive("n"):
            raise DataError(
                f"{row.where}: run {name} has {row.text('n')} requests, {REQUESTS.name} has"
                f" {len(own)}"
            )
        tokens, finish = (np.array(column) for column in zip(*own, strict=True))
        if not math.isclose(float(finish.max()), row.positive("T"), abs_tol=0.01):
            raise DataError(
                f"{row.where}: run {name} ends at {row.text('T')} s, in {REQUESTS.name} at"
                f" {finish.max()} s"
            )
        whole = np.maximum(1, np.rint(tokens)).astype(np.int64)
        runs.append(Run(name, whole, np.sort(finish)))
    return runs


def cost_of(overhead_s: float, rollout_overhead_s: float) -> ServerCost:
    """Coefficients of the server: the roofline of the GPU with two factors replaced.

    Args:
        overhead_s: ``server_step_overhead_s``, seconds.
        rollout_overhead_s: ``server_rollout_overhead_s``, seconds.
    """
    factors = Factors(
        server_step_overhead_s=overhead_s, server_rollout_overhead_s=rollout_overhead_s
    )
    # One GPU: the network is not used.
    cluster = Cluster(gpu=gpu(GPU), nodes=1, gpus_per_node=1, network_bytes_per_s_per_node=1.0)
    return Roofline(
        cluster=cluster,
        model=load_model(MODEL),
        server_layout=ServerLayout(static_memory_fraction=MEMORY_FRACTION),
        trainer_layout=TrainerLayout(),
        factors=factors,
    ).server()


def submitted(
    tokens: NDArray[np.int64], exponent: float, seed: int = ORDER_SEED
) -> NDArray[np.int64]:
    """The order of submission: drawn one by one, with chances that go as tokens^exponent.

    An exponent of 0 is a random order, a very large one is longest first. Drawn by adding Gumbel
    noise to the logarithms of the weights (Efraimidis and Spirakis, 2006, in the form of keys).

    Args:
        tokens: output tokens of each request, shape (requests,).
        exponent: at least 0.
        seed: of the noise.

    Returns:
        Positions in `tokens`, shape (requests,).
    """
    noise = np.random.default_rng(seed).gumbel(size=len(tokens))
    return np.argsort(-(exponent * np.log(tokens) + noise), kind="stable")


def finish_times_s(
    cost: ServerCost, tokens: NDArray[np.int64], kv_cache_tokens: int
) -> NDArray[np.float64]:
    """When the requests of a batch finish in the simulated engine, in seconds, ascending.

    Args:
        cost: the server's coefficients.
        tokens: output tokens of each request, in the order of submission, shape (requests,).
        kv_cache_tokens: KV entries that fit.
    """
    engine = Engine(
        cost,
        max_running_rollouts=MAX_RUNNING,
        kv_cache_tokens=kv_cache_tokens,
        prefill_chunk_tokens=STEP_TOKENS,
        kv_reserve_tokens=RESERVE_TOKENS,
    )
    for number, length in enumerate(tokens.tolist()):
        engine.submit(Request(number, PROMPT_TOKENS, length), 0)
    engine.plan()
    finish: list[float] = []
    while (now_fs := engine.next_visible_fs()) is not None:
        finish += [now_fs / FS_PER_S] * len(engine.advance(now_fs))
        engine.plan()
    return np.array(finish)


def points_s(finish_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """When each share in `POINTS` of the requests had finished, from ascending finish times."""
    ends = [math.ceil(share * len(finish_s)) - 1 for share in POINTS.values()]
    return finish_s[ends]


def kv_capacity() -> int:
    """KV entries that fit beside the weights in the share of the GPU's memory."""
    layout = ServerLayout(static_memory_fraction=MEMORY_FRACTION)
    return server_memory(gpu(GPU), load_model(MODEL), layout).kv_cache_tokens


def fit(runs: Sequence[Run], kv_cache_tokens: int, exponent: float) -> Fitted:
    """The two overheads with the smallest squared relative errors at `POINTS`, for one order."""
    ordered = [run.tokens[submitted(run.tokens, exponent)] for run in runs]
    measured = [points_s(run.finish_s) for run in runs]

    def errors(values: NDArray[np.float64]) -> NDArray[np.float64]:
        cost = cost_of(*values.tolist())
        return np.concatenate(
            [
                points_s(finish_times_s(cost, tokens, kv_cache_tokens)) / want - 1
                for tokens, want in zip(ordered, measured, strict=True)
            ]
        )

    found = least_squares(
        errors, START, bounds=(LOWEST, HIGHEST), x_scale=SCALE, diff_step=[DIFFERENCE] * len(START)
    )
    overhead, rollout = found.x.tolist()
    return Fitted(overhead, rollout, exponent, 2 * float(found.cost))


def compare(data: Path) -> Report:
    """Fit on every fifth run, and predict the rest.

    Args:
        data: folder of the measured cases.

    Raises:
        DataError: the cases cannot be read.
    """
    runs = read_runs(data)
    capacity = kv_capacity()
    fits = [fit(runs[::FIT_EVERY], capacity, exponent) for exponent in EXPONENTS]
    best = min(fits, key=lambda one: one.squared_error)
    cases = cases_of(runs, best, capacity)
    rows = f"every fifth run ({len(runs[::FIT_EVERY])} of {len(runs)}), at 50, 90 and 100 %"
    return Report(
        title=f"vLLM on one {GPU}, {MODEL}: when requests finish",
        cases=cases,
        fits=[
            Fit("server_step_overhead_s", f"{best.overhead_s * 1e3:.2f} ms", rows),
            Fit("server_rollout_overhead_s", f"{best.rollout_overhead_s * 1e6:.0f} us", rows),
            Fit("exponent of the order of submission", f"{best.exponent:g}", rows),
        ],
        remarks=[
            f"assumed: prompts of {PROMPT_TOKENS} tokens; at most {MAX_RUNNING} requests run",
            "the same with a random order (exponent 0): "
            + summary_line(cases_of(runs, fits[0], capacity), False, "time to finish (s)"),
        ],
    )


def cases_of(runs: Sequence[Run], fitted: Fitted, kv_cache_tokens: int) -> list[Case]:
    """Every run at each of `POINTS`."""
    cases = []
    for number, run in enumerate(runs):
        predicted = fitted.predict_s(run.tokens, kv_cache_tokens)
        cases += [
            Case(run.name, quantity, want, have, fitted=number % FIT_EVERY == 0)
            for quantity, want, have in zip(
                POINTS, points_s(run.finish_s).tolist(), predicted.tolist(), strict=True
            )
        ]
    return cases


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table.

    Args:
        arguments: command line; the process's own by default.

    Returns:
        0, or 2 where the measured cases are missing or malformed.
    """
    return command("completion_curves", __doc__, compare, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
