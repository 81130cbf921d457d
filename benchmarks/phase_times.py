"""Step and phase times of published RL runs, against simulations of them.

    python -m benchmarks.phase_times

Rows that say enough are set up as runs (`benchmarks.phase_setups` has what was assumed) and
simulated with the default costs; the others are listed with the reason. One number is fitted here:
the length scale of the verl runs on H20, whose lengths are not published, to the log-probability
pass of the synchronous run on 32 GPUs, whose work grows with all tokens and not with the longest
answers. Its other times, and all of the other runs, are predicted.

A phase is what a published step calls it: generation is the time in which a colocated trainer has
nothing to do, log-probabilities are the proximal pass, the update is all minibatches with their
optimizer steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.optimize import brentq

from analysis.recorder import TRAINER_ACTIVITIES
from areal_sim.config import RunConfig
from areal_sim.rundir import simulate
from benchmarks.measured import Case, DataError, Fit, Report, Row, command, read_rows
from benchmarks.phase_setups import (
    ASSUMED,
    PAPER_CONFIGS,
    PAPER_FITTED,
    REASONS,
    SCALE_FITTED_ON,
    SCALE_SHARED,
    SCALES,
    config_of,
    model_files,
    paper_config,
    scale_for_mean,
)

CASES = Path("measured/rl_step_time_cases.csv")

SYNCHRONOUS_STEPS = 3
"""Simulated steps of a synchronous run: each begins afresh, so a few give the mean."""
ASYNCHRONOUS_STEPS = 12
"""Of an asynchronous one: its first steps are start-up and do not count."""
SCALE_ERROR = 0.005
"""The length scale is found to this."""

NS_PER_S = 1e9
UPDATE = ("minibatch", "optimizer")
LOG_PROBABILITIES = "log-probabilities (s)"


@dataclass(frozen=True, slots=True)
class Times:
    """Mean times of a simulated training step, in seconds; None where it has no such phase."""

    step_s: float
    generation_s: float | None
    proximal_s: float | None
    update_s: float


def times_of(config: RunConfig) -> Times:
    """Simulate a run and take its times.

    Synchronous runs: over all steps. Asynchronous ones: the step in steady state.
    """
    outcome = simulate(config, name="case")
    spans, steps = outcome.recorder.trainer_spans, outcome.summary["steps"]
    lasting = spans["end_ns"] - spans["start_ns"]
    per_step = {
        name: float(lasting[spans["activity"] == code].sum()) / NS_PER_S / steps
        for code, name in enumerate(TRAINER_ACTIVITIES)
    }
    update_s = sum(per_step[name] for name in UPDATE)
    if not config.cluster.colocated:
        return Times(outcome.summary["step_time_s"]["mean"], None, None, update_s)
    step_s = outcome.summary["simulated_hours"] * 3600 / steps
    busy_s = sum(seconds for name, seconds in per_step.items() if name != "idle")
    return Times(step_s, step_s - busy_s, per_step["proximal"], update_s)


def steps_of(case: str) -> int:
    """Training steps to simulate for a case."""
    if case in PAPER_CONFIGS:
        return SYNCHRONOUS_STEPS if case.endswith("syncareal") else ASYNCHRONOUS_STEPS
    return SYNCHRONOUS_STEPS if ASSUMED[case].asynchronous is None else ASYNCHRONOUS_STEPS


def fit_scale(time_s: Callable[[float], float], measured_s: float) -> float:
    """The length scale with the measured time, to within `SCALE_ERROR`.

    Args:
        time_s: simulated time for a length scale; grows with it.
        measured_s: what is wanted.

    Raises:
        DataError: no scale within `SCALES` gives it.
    """
    low, high = SCALES
    if not time_s(low) < measured_s < time_s(high):
        raise DataError(f"no length scale from {low:g} to {high:g} gives {measured_s:g} s")
    return float(brentq(lambda scale: time_s(scale) - measured_s, low, high, rtol=SCALE_ERROR))


def cases_of(row: Row, times: Times) -> list[Case]:
    """What the row has of step, generation, log-probabilities and update."""
    name = row.text("case_id")
    waits = ASSUMED[name].asynchronous is not None if name in ASSUMED else False
    pairs = [
        # Where the trainer waits for samples, the file has that time in place of generation.
        ("generation (s)", None if waits else row.maybe("gen_s"), times.generation_s),
        (LOG_PROBABILITIES, row.maybe("old_logprob_s"), times.proximal_s),
        ("update (s)", row.maybe("update_actor_s"), times.update_s),
        ("step (s)", row.maybe("step_s"), times.step_s),
    ]
    return [
        Case(name, quantity, measured, predicted, fitted=_fitted(name, quantity))
        for quantity, measured, predicted in pairs
        if measured is not None and predicted is not None
    ]


def _fitted(name: str, quantity: str) -> bool:
    if name.startswith(PAPER_FITTED):
        return True
    return name == SCALE_FITTED_ON and quantity == LOG_PROBABILITIES


def compare(data: Path) -> Report:
    """Every row that can be set up.

    Args:
        data: folder of the measured cases.

    Raises:
        DataError: the rows cannot be read.
        ConfigError: a row contradicts itself.
    """
    columns = (
        *("case_id", "hardware", "n_gpus_total", "n_rollout_gpus", "model", "max_resp"),
        *("prompts_per_step", "n_per_prompt", "seqs_per_step", "minibatch_prompts", "tp_rollout"),
        *("resp_mean", "gen_s", "old_logprob_s", "update_actor_s", "step_s"),
    )
    rows = {row.text("case_id"): row for row in read_rows(data / CASES, columns)}
    cases: list[Case] = []
    fits, left_out = [], []
    with model_files() as folder:
        shared_scale: float | None = None
        if (row := rows.get(SCALE_FITTED_ON)) is not None:
            shared_scale = _shared_scale(row, folder)
            what = "length_scale of the verl_fa rows, over the preset math-7b-boba"
            fits.append(Fit(what, f"{shared_scale:.3f}", f"log-probabilities of {SCALE_FITTED_ON}"))
        for name, row in rows.items():
            if name in PAPER_CONFIGS:
                config = paper_config(row, steps=steps_of(name))
            elif name not in ASSUMED:
                left_out.append((name, REASONS.get(name, "not known here")))
                continue
            elif not name.startswith(SCALE_SHARED):
                scale = scale_for_mean(row, folder)
                config = config_of(row, folder, steps=steps_of(name), length_scale=scale)
            elif shared_scale is None:
                left_out.append((name, f"its lengths come from {SCALE_FITTED_ON}, not in the file"))
                continue
            else:
                config = config_of(row, folder, steps=steps_of(name), length_scale=shared_scale)
            cases += cases_of(row, times_of(config))
    fits.append(
        Fit(
            "eight numbers of the areal_T1 rows",
            "in configs/paper",
            "those rows and figure 6a of the same paper",
        )
    )
    return Report(
        title="step and phase times of RL runs", cases=cases, fits=fits, left_out=left_out
    )


def _shared_scale(row: Row, folder: Path) -> float:
    def proximal_s(scale: float) -> float:
        config = config_of(row, folder, steps=SYNCHRONOUS_STEPS, length_scale=scale)
        return times_of(config).proximal_s or 0.0

    return fit_scale(proximal_s, row.positive("old_logprob_s"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table.

    Args:
        arguments: command line; the process's own by default.

    Returns:
        0, or 2 where the measured cases are missing or malformed.
    """
    return command("phase_times", __doc__, compare, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
