"""A run as a Chrome trace: open it in https://ui.perfetto.dev or chrome://tracing.

Format: "Trace Event Format", the JSON object form. One process for generation with a thread per
server, one for training, one for counters. Times are microseconds since the run began.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from analysis.bars import Window
from analysis.figures import in_flight_at, ready_at
from analysis.recorder import SERVER_ACTIVITIES, TRAINER_ACTIVITIES, RunRecorder
from analysis.steps import Steps, steady_state, steps_of
from analysis.tiling import Spans, server_tiles, trainer_tiles

MAX_EVENTS = 200_000
"""Slices and instants in a file. Perfetto opens ten times as many, but not quickly."""

_GENERATION, _TRAINING, _COUNTERS = 1, 2, 3  # process ids
_TRAINER, _STEPS = 0, 1  # thread ids of the training process
_COUNTER_POINTS = 4000
_GZIP_LEVEL = 6


def write_chrome_trace(
    recorder: RunRecorder, path: Path | str, *, max_events: int = MAX_EVENTS
) -> Path:
    """Write a run's spans, steps, interruptions and counters.

    A run with more than ``max_events`` events is cut to a window that begins in steady state and
    ends, if possible, with a training step; ``otherData`` in the file tells the window.

    Args:
        recorder: the run.
        path: file to write, usually ``trace.json.gz``. The same run gives the same bytes.
        max_events: bound on slices and instants.

    Returns:
        The path.

    Raises:
        AnalysisError: the spans do not tile the run.
    """
    window = choose_window(recorder, max_events)
    events = [json.dumps(x, separators=(",", ":")) for x in trace_events(recorder, window)]
    facts = recorder.facts
    whole = window.start_ns == 0 and window.end_ns == recorder.end_ns
    other = {
        "run": facts.name,
        "scheduler": facts.scheduler,
        "config_sha256": facts.config_sha256,
        "window": "the whole run"
        if whole
        else f"{window.start_ns / 1e9:.3f} s to {window.end_ns / 1e9:.3f} s of "
        f"{recorder.end_ns / 1e9:.3f} s, cut to {max_events} events",
        "window_start_ns": window.start_ns,
        "window_end_ns": window.end_ns,
        "run_end_ns": recorder.end_ns,
    }
    text = (
        f'{{"displayTimeUnit":"ms","otherData":{json.dumps(other)},"traceEvents":[\n'
        + ",\n".join(events)
        + "\n]}\n"
    )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(gzip.compress(text.encode(), _GZIP_LEVEL, mtime=0))
    return target


def choose_window(recorder: RunRecorder, max_events: int) -> Window:
    """The whole run if it has few enough events, else a part of its steady state."""
    end_ns = recorder.end_ns
    steps = steps_of(recorder)
    starts = np.concatenate(
        [
            server_tiles(recorder, end_ns)["start_ns"],
            trainer_tiles(recorder, end_ns)["start_ns"],
            recorder.interrupts["now_ns"],
            steps.train_ns,
        ]
    )
    if len(starts) <= max_events:
        return Window(0, end_ns, 0, len(steps))
    first = steady_state(steps)
    # A device's span that began before the window reaches into it: leave room for one of each.
    room = max(max_events - recorder.facts.servers - 2, 1)
    later = np.sort(starts[starts >= first.start_ns])
    cut_ns = int(later[room]) if room < len(later) else end_ns
    whole_steps = steps.end_ns[(steps.end_ns > first.start_ns) & (steps.end_ns <= cut_ns)]
    stop_ns = int(whole_steps[-1]) if len(whole_steps) else cut_ns
    return Window(first.start_ns, stop_ns, first.first_step, first.first_step + len(whole_steps))


def trace_events(recorder: RunRecorder, window: Window) -> Iterator[dict[str, Any]]:
    """Yield the trace events of a window: metadata, slices, instants, counters.

    Raises:
        AnalysisError: the spans do not tile the run up to the window's end.
    """
    servers = _within(server_tiles(recorder, window.end_ns), window)
    trainer = _within(trainer_tiles(recorder, window.end_ns), window)
    yield from _names(recorder, np.unique(servers["server_id"]).tolist())
    yield from _server_slices(servers)
    yield from _trainer_slices(trainer)
    yield from _step_slices(steps_of(recorder), window)
    yield from _instants(recorder, window)
    yield from _counters(recorder, window)


def _names(recorder: RunRecorder, servers: list[int]) -> Iterator[dict[str, Any]]:
    facts = recorder.facts
    processes = {
        _GENERATION: f"generation ({facts.server_gpus} GPUs)",
        _TRAINING: f"training ({facts.training_gpus} GPUs)",
        _COUNTERS: "rollouts",
    }
    for pid, name in processes.items():
        yield _meta(pid, 0, "process_name", name=name)
        yield _meta(pid, 0, "process_sort_index", sort_index=pid)
    for server in servers:
        yield _meta(_GENERATION, server, "thread_name", name=f"server {server}")
        yield _meta(_GENERATION, server, "thread_sort_index", sort_index=server)
    yield _meta(_TRAINING, _TRAINER, "thread_name", name="trainer")
    yield _meta(_TRAINING, _STEPS, "thread_name", name="training steps")


def _meta(pid: int, tid: int, what: str, **args: Any) -> dict[str, Any]:
    return {"ph": "M", "pid": pid, "tid": tid, "ts": 0, "name": what, "args": args}


def _slice(
    pid: int, tid: int, name: str, start_ns: int, end_ns: int, args: dict[str, Any]
) -> dict[str, Any]:
    return {
        "ph": "X",
        "pid": pid,
        "tid": tid,
        "name": name,
        "cat": "generation" if pid == _GENERATION else "training",
        "ts": start_ns / 1000,
        "dur": (end_ns - start_ns) / 1000,
        "args": args,
    }


def _rows(spans: Spans) -> Iterator[dict[str, int]]:
    names = list(spans)
    for row in zip(*(spans[name].tolist() for name in names), strict=True):
        yield dict(zip(names, row, strict=True))


def _server_slices(spans: Spans) -> Iterator[dict[str, Any]]:
    details = ("prefill_ns", "recompute_ns", "generated_tokens", "recomputed_tokens")
    for row in _rows(spans):
        args = {name: row[name] for name in details if row[name]}
        name = SERVER_ACTIVITIES[row["activity"]]
        yield _slice(_GENERATION, row["server_id"], name, row["start_ns"], row["end_ns"], args)


def _trainer_slices(spans: Spans) -> Iterator[dict[str, Any]]:
    details = ("weight_version", "waiting_ns", "micro_batches")
    for row in _rows(spans):
        args = {name: row[name] for name in details if row[name]}
        name = TRAINER_ACTIVITIES[row["activity"]]
        yield _slice(_TRAINING, _TRAINER, name, row["start_ns"], row["end_ns"], args)


def _step_slices(steps: Steps, window: Window) -> Iterator[dict[str, Any]]:
    for i in range(len(steps)):
        start_ns, end_ns = int(steps.train_ns[i]), int(steps.end_ns[i])
        if start_ns < window.end_ns and end_ns > window.start_ns:
            args = {
                "trajectories": int(steps.trajectories[i]),
                "generated_tokens": int(steps.generated_tokens[i]),
                "lag_mean": int(steps.lag_sum[i]) / int(steps.trajectories[i]),
                "lag_max": int(steps.lag_max[i]),
            }
            name = f"step to v{steps.weight_version[i]}"
            yield _slice(_TRAINING, _STEPS, name, start_ns, end_ns, args)


def _instants(recorder: RunRecorder, window: Window) -> Iterator[dict[str, Any]]:
    table = recorder.interrupts
    now = table["now_ns"]
    inside = (now >= window.start_ns) & (now <= window.end_ns)
    for now_ns, server, rollouts in zip(
        now[inside].tolist(),
        table["server_id"][inside].tolist(),
        table["rollouts"][inside].tolist(),
        strict=True,
    ):
        yield {
            "ph": "i",
            "s": "t",
            "pid": _GENERATION,
            "tid": server,
            "name": "rollouts interrupted",
            "cat": "generation",
            "ts": now_ns / 1000,
            "args": {"rollouts": rollouts},
        }


def _counters(recorder: RunRecorder, window: Window) -> Iterator[dict[str, Any]]:
    grid = np.unique(np.linspace(window.start_ns, window.end_ns, _COUNTER_POINTS).astype(np.int64))
    counters = (
        ("rollouts in flight", in_flight_at(recorder, grid)),
        ("trajectories ready", ready_at(recorder, grid)),
    )
    for name, values in counters:
        # Only changes, and the first value.
        changed = np.flatnonzero(np.diff(values, prepend=values[0] - 1))
        for time_ns, value in zip(grid[changed].tolist(), values[changed].tolist(), strict=True):
            yield {
                "ph": "C",
                "pid": _COUNTERS,
                "tid": 0,
                "name": name,
                "ts": time_ns / 1000,
                "args": {"rollouts": value},
            }


def _within(spans: Spans, window: Window) -> Spans:
    keep = (spans["start_ns"] < window.end_ns) & (spans["end_ns"] > window.start_ns)
    return {name: column[keep] for name, column in spans.items()}
