"""Training steps, and where the steady state begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from analysis.columns import Ints
from analysis.recorder import RunRecorder

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Steps:
    """The finished training steps of a run in order, every field of shape (steps,).

    Attributes:
        weight_version: the version the step made.
        train_ns: when it started.
        end_ns: when it finished.
        step_ns: from the end of the step before (the first: from the start of the run) to its end.
        first_row, end_row: its trajectories are ``trajectories[first_row:end_row]``.
        trajectories, prompt_tokens, generated_tokens, interruptions: sums over them.
        lag_sum, lag_max: of their lags, in versions.
        reward_mean: of their rewards.
    """

    weight_version: Ints
    train_ns: Ints
    end_ns: Ints
    step_ns: Ints
    first_row: Ints
    end_row: Ints
    trajectories: Ints
    prompt_tokens: Ints
    generated_tokens: Ints
    interruptions: Ints
    lag_sum: Ints
    lag_max: Ints
    reward_mean: Floats

    def __len__(self) -> int:
        """Return the number of finished steps."""
        return len(self.end_ns)


def steps_of(recorder: RunRecorder) -> Steps:
    """Gather the finished training steps of a run."""
    batches = recorder.trained_batches()
    rows = list(zip(batches["first_row"].tolist(), batches["end_row"].tolist(), strict=True))
    table = recorder.trajectories
    sums: dict[str, Ints] = {}
    for name in ("prompt_tokens", "generated_tokens", "interruptions", "first_version"):
        column = table[name]
        sums[name] = np.array([column[a:b].sum(dtype=np.int64) for a, b in rows], np.int64)
    first, reward = table["first_version"], table["reward"]
    count = batches["end_row"] - batches["first_row"]
    consuming = batches["weight_version"] - 1
    oldest = np.array([first[a:b].min() for a, b in rows], np.int64)
    return Steps(
        weight_version=batches["weight_version"],
        train_ns=batches["train_ns"],
        end_ns=batches["settled_ns"],
        step_ns=np.diff(batches["settled_ns"], prepend=0),
        first_row=batches["first_row"],
        end_row=batches["end_row"],
        trajectories=count,
        prompt_tokens=sums["prompt_tokens"],
        generated_tokens=sums["generated_tokens"],
        interruptions=sums["interruptions"],
        lag_sum=consuming * count - sums["first_version"],
        lag_max=consuming - oldest,
        reward_mean=np.array([reward[a:b].mean(dtype=np.float64) for a, b in rows], np.float64),
    )


def transient_steps(step_ns: Sequence[int]) -> int:
    """How many first steps are start-up and not steady state: the MSER rule.

    Of all truncations d, take the one whose remainder has the smallest squared standard error,
    sum((x_i - mean)^2) / (n - d)^2 over i > d (White 1997, "An effective truncation heuristic for
    bias reduction in simulation output", Simulation 69:6). As usual d is at most half of the
    steps; where there are more than 3 steps it is at least 1, since the first step of a run
    starts with empty servers. In whole numbers, so it is the same on every machine.

    Args:
        step_ns: step times in order.
    """
    values = [int(x) for x in step_ns]
    count = len(values)
    least = 1 if count > 3 else 0
    total, squares = sum(values), sum(x * x for x in values)
    best, best_error = least, None
    for cut in range(count // 2 + 1):
        if cut:
            total -= values[cut - 1]
            squares -= values[cut - 1] ** 2
        left = count - cut
        if left and cut >= least:
            error = Fraction(left * squares - total * total, left**3)
            if best_error is None or error < best_error:
                best, best_error = cut, error
    return best


@dataclass(frozen=True, slots=True)
class SteadyState:
    """The part of a run that steady-state figures are taken from.

    Attributes:
        first_step: index of its first step; so many steps are start-up.
        start_ns, end_ns: from the end of the last start-up step to the end of the last step.
    """

    first_step: int
    start_ns: int
    end_ns: int


def steady_state(steps: Steps, first_step: int | None = None) -> SteadyState:
    """Cut the start-up off; without any step the result is empty, 0 to 0.

    Args:
        steps: of a run.
        first_step: index of the first step to take, to cut several runs alike; None lets
            `transient_steps` choose.
    """
    if not len(steps):
        return SteadyState(0, 0, 0)
    first = first_step
    if first is None:
        first = transient_steps(steps.step_ns.tolist())
    first = min(first, len(steps) - 1)
    start_ns = int(steps.end_ns[first - 1]) if first else 0
    return SteadyState(first, start_ns, int(steps.end_ns[-1]))
