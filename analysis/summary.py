"""The summary: a run in a few dozen numbers, the same on every machine but for the wall clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.accounts import accounts
from analysis.causes import CAUSES
from analysis.columns import Ints
from analysis.power import power_summary
from analysis.recorder import RunRecorder
from analysis.steps import SteadyState, Steps, steady_state, steps_of
from analysis.tiling import server_tiles
from areal_sched.records import Phase

_NS_PER_S = 10**9
_NS_PER_HOUR = 3600 * _NS_PER_S

WALL_CLOCK_KEYS = ("wall_s", "trajectories_per_wall_s", "realtime_factor")
"""Keys that differ from machine to machine; all others do not."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a summary: its dotted name, its unit, what part of the run it covers."""

    name: str
    unit: str
    covers: str
    meaning: str


_RUN, _STEADY = "whole run", "steady state"

KEYS: tuple[Key, ...] = (
    Key("name", "", _RUN, "The run's name."),
    Key("scheduler", "", _RUN, "Import path of the scheduler class."),
    Key("seed", "", _RUN, "The run's seed."),
    Key("config_sha256", "", _RUN, "Hash of the resolved configuration."),
    Key("journal_sha256", "", _RUN, "Hash of the journal's uncompressed lines."),
    Key("gpus", "GPUs", _RUN, "All GPUs of the cluster."),
    Key("steps", "steps", _RUN, "Training steps finished."),
    Key(
        "transient_steps",
        "steps",
        _RUN,
        "Of these, the first ones that count as start-up: chosen by the MSER rule on step times, "
        "at most half, at least 1 of more than 3.",
    ),
    Key("simulated_hours", "hours", _RUN, "Length of the run on its own clock."),
    Key("gpu_hours", "GPU hours", _RUN, "`gpus` times `simulated_hours`."),
    Key("cost_usd", "USD", _RUN, "`gpu_hours` times the rent of one GPU; `null` where unknown."),
    Key(
        "usd_per_million_trained_tokens",
        "USD/million trained tokens",
        _RUN,
        "`cost_usd` by `trained_tokens`.",
    ),
    Key(
        "energy_kwh",
        "kWh",
        _RUN,
        "Energy of all GPUs and their share of the nodes: busy causes at busy watts, idle ones and "
        "unused GPUs at idle watts. An upper bound where busy watts are the data sheet's. `null` "
        "where unknown.",
    ),
    Key(
        "energy_j_per_trained_token",
        "J/trained token",
        _RUN,
        "`energy_kwh` by `trained_tokens`.",
    ),
    Key("trajectories", "trajectories", _RUN, "Trajectories trained."),
    Key("discarded_trajectories", "rollouts", _RUN, "Rollouts dropped or failed."),
    Key("dropped_trajectories", "rollouts", _RUN, "Rollouts the scheduler dropped."),
    Key("failed_trajectories", "rollouts", _RUN, "Rollouts that failed or were aborted."),
    Key(
        "live_rollouts",
        "rollouts",
        _RUN,
        "Rollouts neither trained nor discarded when the run ended.",
    ),
    Key(
        "interruptions",
        "interruptions",
        _RUN,
        "How often rollouts were stopped and lost their KV cache, over all rollouts.",
    ),
    Key("generated_tokens", "tokens", _RUN, "Tokens servers generated, also those lost later."),
    Key("trained_tokens", "tokens", _RUN, "Generated tokens of trained trajectories."),
    Key(
        "recomputed_tokens",
        "tokens",
        _RUN,
        "Tokens prefilled again because an interruption dropped their KV cache.",
    ),
    Key(
        "step_time_s.mean",
        "s",
        _STEADY,
        "Mean time from the end of a training step to the end of the next.",
    ),
    Key("step_time_s.p50", "s", _STEADY, "Median of the same, interpolated linearly."),
    Key("step_time_s.p99", "s", _STEADY, "99th percentile of the same."),
    Key(
        "effective_throughput_tokens_per_s",
        "tokens/s",
        _STEADY,
        "Generated tokens of trained trajectories per second of the run.",
    ),
    Key(
        "generated_tokens_per_s",
        "tokens/s",
        _STEADY,
        "Tokens servers generated per second of the run, trained on or not.",
    ),
    Key(
        "rollouts_in_flight_mean",
        "rollouts",
        _STEADY,
        "Rollouts on servers or interrupted, mean over time. Idle shares do not show servers that "
        "decode few rollouts at a time; this does.",
    ),
    Key(
        "idle_share.generation",
        "share",
        _STEADY,
        "Share of the GPU time held by generation in which the GPU was idle, paused or down.",
    ),
    Key(
        "idle_share.training",
        "share",
        _STEADY,
        "Share of the GPU time held by the trainer in which the GPU was idle, waited for another "
        "rank or the pipeline, or was down.",
    ),
    Key("idle_share.all", "share", _STEADY, "The same over both together."),
    Key("lag.mean", "versions", _STEADY, "Mean lag of the trajectories trained."),
    Key("lag.max", "versions", _STEADY, "Largest lag."),
    Key("lag.histogram", "trajectories", _STEADY, "Trajectories trained by lag."),
    Key(
        "gpu_time_share",
        "share",
        _RUN,
        "Share of all GPU time by cause; the shares sum to 1. The causes are in `analysis.causes`.",
    ),
    Key("wall_s", "s", _RUN, "Time it took to simulate or to run. Wall clock."),
    Key(
        "trajectories_per_wall_s",
        "trajectories/s",
        _RUN,
        "Trajectories trained per second of `wall_s`. Wall clock.",
    ),
    Key("realtime_factor", "", _RUN, "Seconds of the run per second of `wall_s`. Wall clock."),
)
"""Every key of a summary, in order."""


def summarise(
    recorder: RunRecorder, end_ns: int, wall_s: float, journal_sha256: str
) -> dict[str, Any]:
    """Summarise a run; `KEYS` says what each key means.

    Steady-state figures leave out the start-up (see `analysis.steps.transient_steps`) and what
    came after the last finished step; they are None where the run has no finished step.

    Args:
        recorder: the run.
        end_ns: when it ended.
        wall_s: how long that took on the wall clock, in seconds.
        journal_sha256: see `analysis.recorder.journal_sha256`.

    Returns:
        What `json` can write. Deterministic apart from `WALL_CLOCK_KEYS`.

    Raises:
        AnalysisError: the spans do not tile the run.
    """
    facts = recorder.facts
    steps = steps_of(recorder)
    steady = steady_state(steps)
    whole = accounts(recorder, 0, end_ns)
    part = accounts(recorder, steady.start_ns, steady.end_ns)
    phase = recorder.settlement("phase")
    count = np.bincount(phase, minlength=len(Phase)).tolist()
    trained, failed, dropped = (count[x] for x in (Phase.TRAINED, Phase.FAILED, Phase.DROPPED))
    spans = recorder.server_spans
    seconds = (steady.end_ns - steady.start_ns) / _NS_PER_S
    tokens = int(steps.generated_tokens[steady.first_step :].sum())
    trained_tokens = int(steps.generated_tokens.sum())
    return {
        "name": facts.name,
        "scheduler": facts.scheduler,
        "seed": facts.seed,
        "config_sha256": facts.config_sha256,
        "journal_sha256": journal_sha256,
        "gpus": facts.gpus,
        "steps": len(steps),
        "transient_steps": steady.first_step,
        "simulated_hours": end_ns / _NS_PER_HOUR,
        "gpu_hours": facts.gpus * end_ns / _NS_PER_HOUR,
        **power_summary(facts.power, whole.gpu_ns, trained_tokens),
        "trajectories": trained,
        "discarded_trajectories": dropped + failed,
        "dropped_trajectories": dropped,
        "failed_trajectories": failed,
        "live_rollouts": len(phase) - trained - dropped - failed,
        "interruptions": int(recorder.trajectories["interruptions"].sum(dtype=np.int64)),
        "generated_tokens": int(spans["generated_tokens"].sum()),
        "trained_tokens": trained_tokens,
        "recomputed_tokens": int(spans["recomputed_tokens"].sum()),
        "step_time_s": _step_times(steps.step_ns[steady.first_step :]),
        "effective_throughput_tokens_per_s": tokens / seconds if seconds else None,
        "generated_tokens_per_s": (
            generated_tokens_between(recorder, steady.start_ns, steady.end_ns) / seconds
            if seconds
            else None
        ),
        "rollouts_in_flight_mean": in_flight_mean(recorder, steady.start_ns, steady.end_ns),
        "idle_share": {
            "generation": part.idle_share("generation"),
            "training": part.idle_share("training"),
            "all": part.idle_share(),
        },
        "lag": _lags(recorder, steps, steady),
        "gpu_time_share": {key: whole.share(key) for key in whole.gpu_ns},
        "wall_s": wall_s,
        "trajectories_per_wall_s": trained / wall_s if wall_s > 0 else None,
        "realtime_factor": end_ns / _NS_PER_S / wall_s if wall_s > 0 else None,
    }


def generated_tokens_between(recorder: RunRecorder, start_ns: int, end_ns: int) -> int:
    """Tokens that servers generated in a window; a span over its edge counts in proportion.

    Raises:
        AnalysisError: the servers' spans do not tile up to ``end_ns``.
    """
    spans = server_tiles(recorder, end_ns)
    tokens = spans["generated_tokens"]
    length = spans["end_ns"] - spans["start_ns"]
    inside = np.minimum(spans["end_ns"], end_ns) - np.maximum(spans["start_ns"], start_ns)
    inside = np.maximum(inside, 0)
    partly = (inside > 0) & (inside < length)
    share = (tokens[partly] * (inside[partly] / length[partly])).astype(np.int64)
    return int(tokens[inside == length].sum() + share.sum())


def in_flight_mean(recorder: RunRecorder, start_ns: int, end_ns: int) -> float | None:
    """Rollouts on servers or interrupted, mean over a window; None for an empty one."""
    if end_ns <= start_ns:
        return None
    finish, settled = recorder.trajectories["finish_ns"], recorder.settlement("settled_ns")
    left = np.where(finish >= 0, finish, np.where(settled >= 0, settled, end_ns))
    begun = np.maximum(recorder.trajectories["start_ns"], start_ns)
    inside = np.maximum(np.minimum(left, end_ns) - begun, 0)
    # In microseconds: millions of rollouts times days of nanoseconds would overflow.
    return int((inside // 1000).sum()) / ((end_ns - start_ns) / 1000)


def lags(recorder: RunRecorder, steps: Steps, first_step: int = 0) -> Ints:
    """Lag of each trajectory trained from a step on, in versions, shape (trajectories,)."""
    first = recorder.trajectories["first_version"]
    parts = [
        version - 1 - first[a:b].astype(np.int64)
        for version, a, b in zip(
            steps.weight_version[first_step:].tolist(),
            steps.first_row[first_step:].tolist(),
            steps.end_row[first_step:].tolist(),
            strict=True,
        )
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _lags(recorder: RunRecorder, steps: Steps, steady: SteadyState) -> dict[str, Any]:
    values = lags(recorder, steps, steady.first_step)
    if not len(values):
        return {"mean": None, "max": None, "histogram": {}}
    kinds, counts = np.unique(values, return_counts=True)
    return {
        "mean": int(values.sum()) / len(values),
        "max": int(kinds[-1]),
        "histogram": {
            str(lag): count for lag, count in zip(kinds.tolist(), counts.tolist(), strict=True)
        },
    }


def _step_times(step_ns: Ints) -> dict[str, float | None]:
    if not len(step_ns):
        return {"mean": None, "p50": None, "p99": None}
    p50, p99 = (float(np.percentile(step_ns, q)) / _NS_PER_S for q in (50, 99))
    return {"mean": int(step_ns.sum()) / len(step_ns) / _NS_PER_S, "p50": p50, "p99": p99}


def keys_of(summary: dict[str, Any]) -> dict[str, Any]:
    """A summary's values by dotted key, in the order of `KEYS`; unknown keys are left out."""
    result = {}
    for key in KEYS:
        value: Any = summary
        for part in key.name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        result[key.name] = value
    return result


def reference() -> str:
    """The page ``docs/reference/summary.md``: every key of a summary, in Markdown."""
    lines = [
        "# Summary keys",
        "",
        "What `summary.json` of a run holds, made by `analysis.summary.summarise`. Dots stand for",
        "nesting. Steady-state figures leave out the start-up, `transient_steps` first steps, and",
        "what came after the last finished step; they are `null` in a run without a finished step.",
        "All keys are the same on every machine but the ones marked wall clock.",
        "",
        "| key | unit | covers | meaning |",
        "|---|---|---|---|",
    ]
    lines += [f"| `{key.name}` | {key.unit} | {key.covers} | {key.meaning} |" for key in KEYS]
    lines += [
        "",
        "## Causes",
        "",
        "Every GPU-second of a run has exactly one cause. Which of them count as idle is a",
        "convention: the GPU waits for something and does nothing itself.",
        "",
        "| cause | held by | idle | meaning |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{cause.key}` | {cause.side} | {'yes' if cause.idle else ''} | {cause.meaning} |"
        for cause in CAUSES
    ]
    return "\n".join(lines) + "\n"
