"""Checks that measurements tile: every device tells without gap or overlap what it did."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from analysis.columns import Columns
from analysis.errors import AnalysisError
from analysis.recorder import SERVER_ACTIVITIES, TRAINER_ACTIVITIES, RunRecorder

Spans: TypeAlias = dict[str, NDArray[np.int64]]
"""Columns of spans as in `RunRecorder`, all of one length, sorted by device and start."""

Device: TypeAlias = Callable[[int], str]
"""Names the device of a row of spans, for errors."""

_DOWN = SERVER_ACTIVITIES.index("down")


def check_tiling(recorder: RunRecorder, end_ns: int | None = None) -> None:
    """Check that the spans of a run tile it.

    Each server's from its joining and the trainer's from 0, without gap or overlap, to the end;
    parts fit into their spans; no more servers are up at a time than there are.

    Raises:
        AnalysisError: they do not; the message names the device, the time and the activities.
    """
    end = recorder.end_ns if end_ns is None else end_ns
    server_tiles(recorder, end)
    trainer_tiles(recorder, end)


def server_tiles(recorder: RunRecorder, end_ns: int) -> Spans:
    """The servers' spans, checked up to ``end_ns``, sorted by (server, start).

    Raises:
        AnalysisError: see `check_tiling`.
    """
    spans = _sorted(recorder.server_spans, "server_id")

    def device(row: int) -> str:
        return f"server {spans['server_id'][row]}"

    _check_parts(spans, device, ("prefill_ns", "recompute_ns"))
    _check_contiguous(spans, spans["server_id"], device, SERVER_ACTIVITIES, end_ns)
    _check_places(spans, recorder.facts.servers)
    return spans


def trainer_tiles(recorder: RunRecorder, end_ns: int) -> Spans:
    """The trainer's spans, checked from 0 up to ``end_ns``, sorted by start.

    Raises:
        AnalysisError: see `check_tiling`.
    """
    spans = _sorted(recorder.trainer_spans, None)

    def device(row: int) -> str:
        return "the trainer"

    _check_parts(spans, device, ("waiting_ns",))
    starts = spans["start_ns"]
    if end_ns > 0 and recorder.facts.training_gpus and not (len(starts) and starts[0] == 0):
        first = f"begins at {starts[0]} ns" if len(starts) else "has no span"
        raise AnalysisError(f"the trainer's account {first}, expected 0 ns")
    _check_contiguous(spans, np.zeros(len(starts), np.int64), device, TRAINER_ACTIVITIES, end_ns)
    return spans


def _sorted(columns: Columns, device: str | None) -> Spans:
    """Spans in order, without those of no length (an activity that ended as it began)."""
    keep = columns["start_ns"] != columns["end_ns"]
    spans = {name: columns[name][keep].astype(np.int64) for name in columns.names}
    keys = [spans["start_ns"]] if device is None else [spans["start_ns"], spans[device]]
    order = np.lexsort(keys)
    return {name: column[order] for name, column in spans.items()}


def _check_parts(spans: Spans, device: Device, parts: tuple[str, ...]) -> None:
    length = spans["end_ns"] - spans["start_ns"]
    used = sum((spans[name] for name in parts), np.zeros(len(length), np.int64))
    wrong = (length < 0) | (used > length) | (spans["start_ns"] < 0)
    for name in parts:
        wrong |= spans[name] < 0
    if wrong.any():
        at = int(np.argmax(wrong))
        told = ", ".join(f"{name} = {spans[name][at]}" for name in parts)
        raise AnalysisError(
            f"{device(at)}: a span from {spans['start_ns'][at]} to {spans['end_ns'][at]} ns "
            f"cannot have {told}"
        )


def _check_contiguous(
    spans: Spans,
    owner: NDArray[np.int64],
    device: Device,
    activities: tuple[str, ...],
    end_ns: int,
) -> None:
    start, end, activity = spans["start_ns"], spans["end_ns"], spans["activity"]
    follows = owner[1:] == owner[:-1]
    broken = follows & (start[1:] != end[:-1])
    if broken.any():
        at = int(np.argmax(broken))
        kind = "gap" if start[at + 1] > end[at] else "overlap"
        raise AnalysisError(
            f"{device(at)}: {kind} between {activities[activity[at]]!r} until {end[at]} ns and "
            f"{activities[activity[at + 1]]!r} from {start[at + 1]} ns"
        )
    if len(owner):
        last = np.append(~follows, True)
        early = last & (end < end_ns)
        if early.any():
            at = int(np.argmax(early))
            raise AnalysisError(
                f"{device(at)}: the account ends at {end[at]} ns, before {end_ns} ns"
            )


def _check_places(spans: Spans, servers: int) -> None:
    """No more servers up at a time than there are; ids may be more, as lost ones come back anew."""
    if len(np.unique(spans["server_id"])) <= servers:
        return
    up = spans["activity"] != _DOWN
    times = np.concatenate([spans["end_ns"][up], spans["start_ns"][up]])
    change = np.repeat([-1, 1], int(up.sum()))
    # Ends before starts at the same time: a place that changes hands is not taken twice.
    order = np.lexsort([change, times])
    running = np.cumsum(change[order])
    if len(running) and running.max() > servers:
        at = int(np.argmax(running > servers))
        raise AnalysisError(
            f"{running[at]} servers are up at {times[order[at]]} ns; run.servers = {servers}"
        )
