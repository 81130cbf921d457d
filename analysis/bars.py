"""The bars of a timeline: who did what in a window, as rectangles, before anything is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from analysis.causes import SERVER_CAUSE, TRAINER_CAUSE
from analysis.columns import Ints
from analysis.recorder import SERVER_ACTIVITIES, TRAINER_ACTIVITIES, RunRecorder
from analysis.steps import Steps
from analysis.tiling import Spans, server_tiles, trainer_tiles

_LEAST_SHARE = 0.04
"""Parts of a span below this share of it are not drawn: they would be a hair."""


class Bar(NamedTuple):
    """A cause in a row from ``start_ns`` to ``end_ns``; a part of the row's height, 0 to 1."""

    cause: str
    row: int
    start_ns: int
    end_ns: int
    low: float
    high: float


class Window(NamedTuple):
    """A part of a run. ``first_step`` and ``end_step``: the whole steps in it, as indices."""

    start_ns: int
    end_ns: int
    first_step: int
    end_step: int

    def padded(self, run_end_ns: int) -> Window:
        """A little more on both sides, so that its edges can be seen; nothing beyond the run."""
        pad = (self.end_ns - self.start_ns) // 80
        return self._replace(
            start_ns=max(self.start_ns - pad, 0), end_ns=min(self.end_ns + pad, run_end_ns)
        )


def window_of_steps(steps: Steps, first_steady: int, count: int, run_end_ns: int) -> Window:
    """The window of ``count`` steps from the middle of the steady state.

    A run with fewer steps is shown from its start, a run without any up to its end.
    """
    total = len(steps)
    if not total:
        return Window(0, run_end_ns, 0, 0)
    count = min(count, total)
    first = min(first_steady + max(total - first_steady - count, 0) // 2, total - count)
    start_ns = int(steps.end_ns[first - 1]) if first else 0
    return Window(start_ns, int(steps.end_ns[first + count - 1]), first, first + count)


def window_from(steps: Steps, first_step: int, length_ns: int, run_end_ns: int) -> Window:
    """The window of a given length that begins where a step ends, earlier if the run is short."""
    ends = [0, *steps.end_ns.tolist()]
    first = min(first_step, len(ends) - 1)
    while first and ends[first] + length_ns > run_end_ns:
        first -= 1
    end_ns = min(ends[first] + length_ns, run_end_ns)
    return Window(ends[first], end_ns, first, first + sum(x <= end_ns for x in ends[first + 1 :]))


def sample_servers(recorder: RunRecorder, most: int) -> list[int]:
    """At most so many server ids, evenly spread over all that have spans."""
    ids = np.unique(recorder.server_spans["server_id"])
    if len(ids) <= most:
        return [int(x) for x in ids]
    return [int(x) for x in ids[np.linspace(0, len(ids) - 1, most).round().astype(np.int64)]]


def server_bars(recorder: RunRecorder, servers: list[int], window: Window) -> list[Bar]:
    """Bars of these servers; in a colocated run also what the trainer did on their GPUs.

    Generating is one bar of cause ``decode``; see `rollouts_on` for what fills it.

    Raises:
        AnalysisError: the spans do not tile the run up to the window's end.
    """
    spans = server_tiles(recorder, window.end_ns)
    trainer = trainer_tiles(recorder, window.end_ns)
    row_of = {server: row for row, server in enumerate(servers)}
    chosen = _inside(spans, window) & np.isin(spans["server_id"], servers)
    bars: list[Bar] = []
    for at in np.flatnonzero(chosen).tolist():
        start, end = int(spans["start_ns"][at]), int(spans["end_ns"][at])
        activity = SERVER_ACTIVITIES[spans["activity"][at]]
        row = row_of[int(spans["server_id"][at])]
        clip = Window(max(start, window.start_ns), min(end, window.end_ns), 0, 0)
        if activity == "lent" and recorder.facts.colocated:
            bars += trainer_bars_of(trainer, row, clip)
        else:
            bars.append(Bar(SERVER_CAUSE[activity], row, clip.start_ns, clip.end_ns, 0.0, 1.0))
    return bars


def trainer_bars(recorder: RunRecorder, row: int, window: Window) -> list[Bar]:
    """Bars of the trainer.

    Raises:
        AnalysisError: the spans do not tile the run up to the window's end.
    """
    return list(trainer_bars_of(trainer_tiles(recorder, window.end_ns), row, window))


def trainer_bars_of(trainer: Spans, row: int, window: Window) -> Iterator[Bar]:
    """Bars of the trainer from its tiles, cut to the window."""
    for at in np.flatnonzero(_inside(trainer, window)).tolist():
        start, end = int(trainer["start_ns"][at]), int(trainer["end_ns"][at])
        cause = TRAINER_CAUSE[TRAINER_ACTIVITIES[trainer["activity"][at]]]
        clip = Window(max(start, window.start_ns), min(end, window.end_ns), 0, 0)
        waiting = trainer["waiting_ns"][at] / (end - start)
        yield from _split(cause, [("waiting", waiting)], row, clip)


def _split(cause: str, parts: list[tuple[str, float]], row: int, clip: Window) -> Iterator[Bar]:
    """One span as bars on top of each other, as high as their shares; the rest is ``cause``."""
    low = 0.0
    for name, share in parts:
        if share >= _LEAST_SHARE:
            yield Bar(name, row, clip.start_ns, clip.end_ns, low, low + share)
            low += share
    if low < 1:
        yield Bar(cause, row, clip.start_ns, clip.end_ns, low, 1.0)


def _inside(spans: Spans, window: Window) -> np.typing.NDArray[np.bool_]:
    return (spans["start_ns"] < window.end_ns) & (spans["end_ns"] > window.start_ns)


def rollouts_on(recorder: RunRecorder, servers: list[int], times_ns: Ints) -> Ints:
    """Rollouts on each of these servers at these times, shape (servers, times).

    A rollout that moved counts on its last server all along, as its record names no other.
    """
    table = recorder.trajectories
    start, finish, owner = table["start_ns"], table["finish_ns"], table["server_id"]
    left = np.where(finish >= 0, finish, recorder.settlement("settled_ns"))
    counts = np.zeros((len(servers), len(times_ns)), np.int64)
    for row, server in enumerate(servers):
        on_it = owner == server
        begun, ended = np.sort(start[on_it]), np.sort(left[on_it & (left >= 0)])
        counts[row] = np.searchsorted(begun, times_ns, "right")
        counts[row] -= np.searchsorted(ended, times_ns, "right")
    return counts


def interrupts_in(
    recorder: RunRecorder, servers: list[int], window: Window
) -> tuple[Ints, list[int]]:
    """Times and rows of the interruptions of these servers in the window."""
    table = recorder.interrupts
    times, owners = table["now_ns"], table["server_id"]
    chosen = (times >= window.start_ns) & (times <= window.end_ns) & np.isin(owners, servers)
    row_of = {server: row for row, server in enumerate(servers)}
    return times[chosen], [row_of[int(x)] for x in owners[chosen]]
