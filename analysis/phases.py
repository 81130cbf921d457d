"""Phases: how long each thing a run does takes, in its steady state.

Beside the summary, for comparing runs whose phases differ: a real one with its simulation.
Everything here comes from the journal, so it is known of simulated and real runs alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.accounts import accounts
from analysis.causes import CAUSES
from analysis.columns import Columns, Ints
from analysis.recorder import SERVER_ACTIVITIES, TRAINER_ACTIVITIES, RunRecorder
from analysis.steps import Floats, SteadyState, Steps, steady_state, steps_of
from analysis.summary import Key, lags
from areal_sched.records import Phase

_NS_PER_S = 1e9
_STEADY = "steady state"
_PER_STEP = "trainer_s"
_SHARE = "gpu_share"
_MEANINGS = {
    "switch": "handing colocated GPUs over",
    "proximal": "log-probabilities under the proximal policy",
    "minibatch": "forward and backward passes of all minibatches",
    "optimizer": "parameter updates",
    "overhead": "what belongs to no other phase",
    "publish": "handing out new weights",
    "save": "saving and evaluating",
    "idle": "waiting for a batch",
    "down": "being down",
}

PHASE_KEYS: tuple[Key, ...] = (
    *(
        Key(
            f"{_PER_STEP}.{name}",
            "s",
            _STEADY,
            f"Time of the trainer for {_MEANINGS[name]}, mean per training step.",
        )
        for name in TRAINER_ACTIVITIES
    ),
    Key("load_weights_s.mean", "s", _STEADY, "Mean time of a server for one load of weights."),
    Key(
        "interruption_s.mean",
        "s",
        _STEADY,
        "Mean time from `LoadWeights` to `RolloutsInterrupted` of the same server.",
    ),
    Key("reward_s.mean", "s", _STEADY, "Mean time from `RolloutFinished` to `RewardComputed`."),
    Key("reward_s.p99", "s", _STEADY, "99th percentile of the same."),
    Key(
        "response_s.mean",
        "s",
        _STEADY,
        "Mean time from the start of a trajectory to its last token, queues and all.",
    ),
    Key("response_s.p99", "s", _STEADY, "99th percentile of the same."),
    Key(
        "response_s_per_token",
        "s/token",
        _STEADY,
        "The sum of the same over the sum of generated tokens.",
    ),
    Key("response_tokens.mean", "tokens", _STEADY, "Mean generated tokens of a trajectory."),
    Key("response_tokens.p99", "tokens", _STEADY, "99th percentile of the same."),
    Key(
        "interruptions_per_step",
        "interruptions",
        _STEADY,
        "Rollouts stopped by an interruption, mean per training step.",
    ),
    Key(
        "recomputed_per_step",
        "tokens",
        _STEADY,
        "Tokens prefilled again after an interruption, mean per training step.",
    ),
    Key(
        "discarded_share",
        "share",
        _STEADY,
        "Rollouts dropped or failed, of all that were trained, dropped or failed.",
    ),
    *(Key(f"{_SHARE}.{cause.key}", "share", _STEADY, cause.meaning) for cause in CAUSES),
)
"""Every key of `phases`, in order. Trajectories are those trained in the steady state."""


@dataclass(frozen=True, slots=True)
class Distributions:
    """What the figures of the steady state are taken from.

    Attributes:
        step_s: step times, in seconds, shape (steady steps,).
        response_s: from the start of a trajectory to its last token, in seconds, and
        reward_s: from there to its reward, in seconds, and
        response_tokens: its generated tokens, and
        lag: its lag in versions, all of shape (trajectories trained in the steady state,).
        trainer_s_per_step: mean seconds of a training step by trainer activity.
    """

    step_s: Floats
    response_s: Floats
    reward_s: Floats
    response_tokens: Ints
    lag: Ints
    trainer_s_per_step: dict[str, float]


def distributions(recorder: RunRecorder, first_step: int | None = None) -> Distributions:
    """Gather the distributions of a run's steady state; empty without a finished step.

    Args:
        recorder: the run.
        first_step: see `analysis.steps.steady_state`.
    """
    steps = steps_of(recorder)
    steady = steady_state(steps, first_step)
    rows = _rows(steps, steady)
    table = recorder.trajectories
    start, finish, ready = (table[x][rows] for x in ("start_ns", "finish_ns", "ready_ns"))
    return Distributions(
        step_s=steps.step_ns[steady.first_step :] / _NS_PER_S,
        response_s=(finish - start) / _NS_PER_S,
        reward_s=(ready - finish) / _NS_PER_S,
        response_tokens=table["generated_tokens"][rows].astype(np.int64),
        lag=lags(recorder, steps, steady.first_step),
        trainer_s_per_step=_trainer(recorder, steps, steady),
    )


def phases(recorder: RunRecorder, first_step: int | None = None) -> dict[str, float | None]:
    """Measure the phases of a run's steady state; `PHASE_KEYS` says what each key means.

    Args:
        recorder: the run.
        first_step: see `analysis.steps.steady_state`.

    Returns:
        Every key of `PHASE_KEYS`; None where the run has nothing to measure it from.

    Raises:
        AnalysisError: the spans do not tile the run.
    """
    steps = steps_of(recorder)
    steady = steady_state(steps, first_step)
    count = len(steps) - steady.first_step
    if not count:
        return {key.name: None for key in PHASE_KEYS}
    told = distributions(recorder, first_step)
    tokens = int(told.response_tokens.sum())
    part = accounts(recorder, steady.start_ns, steady.end_ns)
    interrupts = recorder.interrupts
    recent = _within(interrupts["now_ns"], steady)
    asked = recent & (interrupts["asked_ns"] >= 0)
    waited = (interrupts["now_ns"] - interrupts["asked_ns"])[asked] / _NS_PER_S
    result: dict[str, float | None] = {
        f"{_PER_STEP}.{name}": told.trainer_s_per_step.get(name) for name in TRAINER_ACTIVITIES
    }
    result |= {
        "load_weights_s.mean": _mean(_loads(recorder.server_spans, steady)),
        "interruption_s.mean": _mean(waited),
        "reward_s.mean": _mean(told.reward_s),
        "reward_s.p99": _p99(told.reward_s),
        "response_s.mean": _mean(told.response_s),
        "response_s.p99": _p99(told.response_s),
        "response_s_per_token": float(told.response_s.sum()) / tokens if tokens else None,
        "response_tokens.mean": _mean(told.response_tokens),
        "response_tokens.p99": _p99(told.response_tokens),
        "interruptions_per_step": int(interrupts["rollouts"][recent].sum()) / count,
        "recomputed_per_step": _recomputed(recorder.server_spans, steady) / count,
        "discarded_share": _discarded_share(recorder, steady),
    }
    return result | {f"{_SHARE}.{key}": part.share(key) for key in part.gpu_ns}


def _rows(steps: Steps, steady: SteadyState) -> Ints:
    """Rows of the trajectories trained in the steady state."""
    first, end = (x[steady.first_step :].tolist() for x in (steps.first_row, steps.end_row))
    parts = [np.arange(a, b) for a, b in zip(first, end, strict=True)]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _trainer(recorder: RunRecorder, steps: Steps, steady: SteadyState) -> dict[str, float]:
    """Mean seconds of a training step by activity; a span over the window's edge is cut."""
    count = len(steps) - steady.first_step
    spans = recorder.trainer_spans
    inside = _overlap(spans, steady)
    total = np.zeros(len(TRAINER_ACTIVITIES), np.int64)
    np.add.at(total, spans["activity"], inside)
    return {
        name: int(x) / _NS_PER_S / count
        for name, x in zip(TRAINER_ACTIVITIES, total.tolist(), strict=True)
        if x
    }


def _overlap(spans: Columns, steady: SteadyState) -> Ints:
    end = np.minimum(spans["end_ns"], steady.end_ns)
    inside: Ints = np.maximum(end - np.maximum(spans["start_ns"], steady.start_ns), 0)
    return inside


def _within(times_ns: Ints, steady: SteadyState) -> NDArray[np.bool_]:
    return (times_ns > steady.start_ns) & (times_ns <= steady.end_ns)


def _loads(spans: Columns, steady: SteadyState) -> Floats:
    """Seconds of every load of weights that ended in the window."""
    loads = spans["activity"] == SERVER_ACTIVITIES.index("load")
    chosen = loads & _within(spans["end_ns"], steady)
    seconds: Floats = (spans["end_ns"] - spans["start_ns"])[chosen] / _NS_PER_S
    return seconds


def _recomputed(spans: Columns, steady: SteadyState) -> float:
    """Tokens prefilled again in the window; a span over its edge counts in proportion."""
    length = np.maximum(spans["end_ns"] - spans["start_ns"], 1)
    return float((spans["recomputed_tokens"] * (_overlap(spans, steady) / length)).sum())


def _discarded_share(recorder: RunRecorder, steady: SteadyState) -> float | None:
    phase = recorder.settlement("phase")[_within(recorder.settlement("settled_ns"), steady)]
    lost = int(np.isin(phase, (Phase.FAILED, Phase.DROPPED)).sum())
    kept = int((phase == Phase.TRAINED).sum())
    return lost / (lost + kept) if lost + kept else None


def _of(measure: Callable[[NDArray[np.float64] | Ints], float]) -> Callable[..., float | None]:
    return lambda values: float(measure(values)) if len(values) else None


_mean = _of(lambda values: float(values.mean()))
_p99 = _of(lambda values: float(np.percentile(values, 99)))
