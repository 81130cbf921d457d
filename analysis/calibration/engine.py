"""What an engine's steps cost, from what it told of them.

The times of single steps are noisy: each is known by when its message came in. Their sums are not,
so steps in a row are added up to windows, and the windows are fitted:

    time = slowness * (decode steps * base + rollouts * per rollout + context * per token
           + prefill steps * base + rollouts prefilled * per rollout + new tokens * per token)

The slowness is 1, but 1 + slowdown while the trainer works, too: on one machine they share
processors. Where they do not, there is no slowdown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.calibration.least_squares import Fit, Floats, fit
from analysis.recorder import ENGINE_ACTIVITIES, TRAINER_ACTIVITIES, RunRecorder

WINDOW_STEPS = 16
WINDOW_NS = 200_000_000
"""A window has at least so many steps, and is closed once it is so long. Messages come in up to
some 20 ms late, in bursts, where engine and listener wait for Python's interpreter lock."""

MOST_SLOWDOWN = 4.0
"""Of a server by a trainer that shares its processors: beyond it something else is wrong."""

NAMES = (
    "decode_base_s",
    "decode_per_rollout_s",
    "decode_per_kv_token_s",
    "prefill_base_s",
    "prefill_per_rollout_s",
    "prefill_per_token_s",
)
DECODE = ("decode_base_s", "decode_per_rollout_s")
"""A server takes at least one of these for every step."""

_PREFILL = ENGINE_ACTIVITIES.index("prefill")
NS = 1e-9


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a run: what lies between two times."""

    recorder: RunRecorder
    since_ns: int
    until_ns: int


@dataclass(frozen=True, slots=True)
class Windows:
    """Sums over steps in a row.

    Attributes:
        design: (windows, 6), what `NAMES` are multiplied by.
        seconds: (windows,), how long the steps took.
        contended: (windows,), share of that in which the trainer worked.
    """

    design: Floats
    seconds: Floats
    contended: Floats


@dataclass(frozen=True, slots=True)
class EngineFit:
    """What was fitted: ``steps`` without the slowdown, and the slowdown, at least 0."""

    steps: Fit
    slowdown: float


def fit_engine(parts: Sequence[Part], *, shared: bool = True) -> EngineFit:
    """Fit the steps that lie in parts of runs.

    Args:
        parts: of runs.
        shared: whether servers and trainer share processors; if not, there is no slowdown.

    Raises:
        ValueError: no steps were recorded there, or they do not tell what a decode step takes.
    """
    from scipy.optimize import minimize_scalar

    each = [windows_of(part.recorder, part.since_ns, part.until_ns) for part in parts]
    windows = Windows(
        np.concatenate([x.design for x in each]),
        np.concatenate([x.seconds for x in each]),
        np.concatenate([x.contended for x in each]),
    )
    if not len(windows.seconds):
        raise ValueError("the journal tells nothing of the steps of its servers' engines")
    scale = np.sqrt(windows.seconds * windows.seconds.mean())

    def at(slowdown: float) -> Fit:
        factor = slowness(windows.contended, slowdown)
        return fit("engine", NAMES, windows.design * factor[:, None], windows.seconds, scale)

    def loss(slowdown: float) -> float:
        found = at(slowdown)
        values = np.array([c.value for c in found.coefficients])
        predicted = slowness(windows.contended, slowdown) * (windows.design @ values)
        return float((np.abs(windows.seconds - predicted) / scale).sum())

    slowdown = 0.0
    if shared and 0.02 < windows.contended.mean() < 0.98:
        best = minimize_scalar(loss, bounds=(0, MOST_SLOWDOWN), method="bounded")
        slowdown = float(best.x) if best.fun < loss(0.0) else 0.0
    found = at(slowdown)
    if not any(found[name] for name in DECODE):
        raise ValueError(
            f"{' and '.join(DECODE)} cannot be told from what the cache costs: too few steps of"
            " servers that run now more, now fewer rollouts. A longer part, or a run with another"
            " max_running_rollouts beside it, would do"
        )
    return EngineFit(found, slowdown)


def slowness(share: Floats, slowdown: float) -> Floats:
    """How many times as long something takes that is slowed down for a share of its own time.

    In a share s of the time it does 1 / (1 + slowdown) of the work, in the rest all of it.
    """
    factor: Floats = 1 / (1 - share * slowdown / (1 + slowdown))
    return factor


def windows_of(recorder: RunRecorder, since_ns: int, until_ns: int) -> Windows:
    """Add up the steps that lie between two times."""
    steps = recorder.engine_steps
    names = ("server_id", "activity", "start_ns", "end_ns", "steps", "rollouts")
    columns = {name: np.asarray(steps[name], np.int64) for name in (*names, "context_tokens")}
    columns["new_tokens"] = np.asarray(steps["new_tokens"], np.int64)
    inside = (columns["start_ns"] >= since_ns) & (columns["end_ns"] <= until_ns)
    order = np.lexsort((columns["start_ns"], columns["server_id"]))
    order = order[inside[order]]
    columns = {name: column[order] for name, column in columns.items()}
    if not len(order):
        return Windows(np.zeros((0, len(NAMES))), np.zeros(0), np.zeros(0))
    number = _window_numbers(columns)
    prefill = columns["activity"] == _PREFILL
    count, rollouts = columns["steps"], columns["steps"] * columns["rollouts"]
    parts = (
        count * ~prefill,
        rollouts * ~prefill,
        columns["context_tokens"] * ~prefill,
        count * prefill,
        rollouts * prefill,
        columns["new_tokens"],
    )
    total = int(number[-1]) + 1
    design = np.stack([np.bincount(number, x, total) for x in parts], axis=1)
    length = columns["end_ns"] - columns["start_ns"]
    busy = busy_between(recorder, columns["start_ns"], columns["end_ns"])
    seconds = np.bincount(number, length, total) * NS
    contended = np.bincount(number, busy, total) * NS / np.maximum(seconds, NS)
    steps_in = np.bincount(number, count, total)
    whole = (steps_in >= WINDOW_STEPS) & (seconds > 0)
    return Windows(design[whole], seconds[whole], contended[whole])


def _window_numbers(columns: dict[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """The window of each record: of one server, without a gap, and long enough."""
    server, start, end = columns["server_id"], columns["start_ns"], columns["end_ns"]
    joined = np.concatenate([[False], (server[1:] == server[:-1]) & (start[1:] == end[:-1])])
    numbers = np.empty(len(server), np.int64)
    number, steps, since_ns = -1, 0, 0
    for row, (goes_on, count) in enumerate(zip(joined.tolist(), columns["steps"], strict=True)):
        full = steps >= WINDOW_STEPS and start[row] - since_ns >= WINDOW_NS
        if not goes_on or full:
            number += 1
            steps, since_ns = 0, start[row]
        numbers[row] = number
        steps += int(count)
    return numbers


def busy_between(recorder: RunRecorder, start_ns: Floats, end_ns: Floats) -> Floats:
    """Nanoseconds between two times, elementwise, in which the trainer worked."""
    spans = recorder.trainer_spans
    activity = np.asarray(spans["activity"], np.int64)
    idle = [TRAINER_ACTIVITIES.index(x) for x in ("idle", "down")]
    works = ~np.isin(activity, idle)
    start = np.asarray(spans["start_ns"], np.int64)[works]
    end = np.asarray(spans["end_ns"], np.int64)[works]
    if not len(start):
        return np.zeros(len(start_ns))
    edges = np.concatenate([[0], np.cumsum(end - start)])
    last_end = np.concatenate([[0], end])

    def before(time: Floats) -> Floats:
        begun = np.searchsorted(start, time, "right")
        result: Floats = edges[begun] - np.maximum(last_end[begun] - time, 0)
        return result

    return before(end_ns) - before(start_ns)
