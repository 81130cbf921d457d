"""Idle accounting: every GPU-second of a run has exactly one cause.

In whole numbers, GPUs x nanoseconds: the causes of a window sum exactly to its GPUs times its
length, and that is checked each time.

Separated: a server's GPUs have the server's causes, the trainer's GPUs the trainer's. Colocated:
while the trainer is busy its GPUs have the trainer's causes and no server may claim them; the rest
of the time they have the servers' causes, a GPU lent to a trainer that idles being idle in
training. GPUs that neither has are unused; GPUs of servers not joined yet count as down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.causes import CAUSE, CAUSES, SERVER_CAUSE, TRAINER_CAUSE
from analysis.columns import Ints
from analysis.errors import AnalysisError
from analysis.recorder import SERVER_ACTIVITIES, TRAINER_ACTIVITIES, RunRecorder
from analysis.tiling import Spans, server_tiles, trainer_tiles

_INDEX = {cause.key: index for index, cause in enumerate(CAUSES)}
_GENERATE, _DOWN, _LENT = (SERVER_ACTIVITIES.index(x) for x in ("generate", "down", "lent"))
_TRAINER_IDLE, _TRAINER_DOWN = (TRAINER_ACTIVITIES.index(x) for x in ("idle", "down"))
_SERVER_CAUSE = np.array([_INDEX[SERVER_CAUSE[name]] for name in SERVER_ACTIVITIES])
_TRAINER_CAUSE = np.array([_INDEX[TRAINER_CAUSE[name]] for name in TRAINER_ACTIVITIES])


@dataclass(frozen=True, slots=True)
class Accounts:
    """Where the GPU time of one window went.

    Attributes:
        start_ns, end_ns: the window.
        gpus: all GPUs of the run.
        gpu_ns: GPU-nanoseconds by cause, every cause of `CAUSES` in that order; they sum to
            ``gpus * (end_ns - start_ns)``.
    """

    start_ns: int
    end_ns: int
    gpus: int
    gpu_ns: Mapping[str, int]

    @property
    def total_gpu_ns(self) -> int:
        """GPU-nanoseconds of the window, all causes together."""
        return self.gpus * (self.end_ns - self.start_ns)

    def share(self, cause: str) -> float | None:
        """A cause's share of all GPU time; None in an empty window."""
        return _ratio(self.gpu_ns[cause], self.total_gpu_ns)

    def idle_share(self, side: str | None = None) -> float | None:
        """Share of the GPU time that one side holds (None: both) in which the GPU is idle.

        Idle are the causes marked so in `analysis.causes.CAUSES`. None where the side holds none.
        """
        sides = ("generation", "training") if side is None else (side,)
        held = {key: x for key, x in self.gpu_ns.items() if CAUSE[key].side in sides}
        return _ratio(sum(x for key, x in held.items() if CAUSE[key].idle), sum(held.values()))


def accounts(recorder: RunRecorder, start_ns: int = 0, end_ns: int | None = None) -> Accounts:
    """Account for a window, by default the whole run.

    Raises:
        AnalysisError: the spans do not tile the window, or claim a GPU twice.
    """
    end = recorder.end_ns if end_ns is None else end_ns
    return accounts_between(recorder, [start_ns, end])[0]


def accounts_between(recorder: RunRecorder, bounds_ns: Sequence[int]) -> list[Accounts]:
    """Account for the windows between neighbouring bounds.

    A span over a bound is split: its time exactly, what it says of its inside (prefill, recompute,
    waiting) in proportion, to the nanosecond.

    Args:
        recorder: the run.
        bounds_ns: ascending, at least two.

    Raises:
        AnalysisError: the bounds do not ascend, or the spans do not tile the windows, or claim a
            GPU twice.
    """
    bounds = np.array(bounds_ns, np.int64)
    if len(bounds) < 2 or bounds[0] < 0 or (np.diff(bounds) < 0).any():
        raise AnalysisError(f"bounds_ns = {list(bounds_ns)}: expected ascending times")
    colocated = recorder.facts.colocated
    trainer = trainer_tiles(recorder, int(bounds[-1]))
    servers = server_tiles(recorder, int(bounds[-1]))
    trainer_ns, busy_ns = _trainer_account(trainer, bounds, colocated)
    server_ns = _server_account(servers, trainer if colocated else None, bounds)
    return [
        _close(recorder, bounds_ns[i], bounds_ns[i + 1], *account)
        for i, account in enumerate(
            zip(server_ns.tolist(), trainer_ns.tolist(), busy_ns.tolist(), strict=True)
        )
    ]


def _trainer_account(trainer: Spans, bounds: Ints, colocated: bool) -> tuple[Ints, Ints]:
    """Nanoseconds by window and cause of one training GPU, and in which of them it is busy.

    Shapes (windows, causes) and (windows,). Colocated, only what the trainer is busy counts: the
    rest of the time its GPUs have the servers' causes.
    """
    pieces = Pieces(trainer, bounds)
    activity = trainer["activity"][pieces.span]
    busy = (activity != _TRAINER_IDLE) & (activity != _TRAINER_DOWN)
    waiting = np.minimum(pieces.part("waiting_ns"), pieces.length)
    counts = busy if colocated else np.ones_like(busy)
    account = np.zeros((len(bounds) - 1, len(CAUSES)), np.int64)
    own = (pieces.length - waiting) * counts
    np.add.at(account, (pieces.window, _TRAINER_CAUSE[activity]), own)
    np.add.at(account[:, _INDEX["waiting"]], pieces.window, waiting * counts)
    busy_ns = np.zeros(len(bounds) - 1, np.int64)
    np.add.at(busy_ns, pieces.window, pieces.length * busy)
    return account, busy_ns


def _server_account(servers: Spans, colocated_trainer: Spans | None, bounds: Ints) -> Ints:
    """Nanoseconds by window and cause of all servers, shape (windows, causes)."""
    account = np.zeros((len(bounds) - 1, len(CAUSES)), np.int64)
    pieces = Pieces(servers, bounds)
    activity = servers["activity"][pieces.span]
    length = pieces.length
    if colocated_trainer is not None:
        taken, broken = _overlaps(servers, colocated_trainer, pieces, activity)
        np.add.at(account[:, _INDEX["trainer_down"]], pieces.window, broken)
        length = length - taken - broken
    elif (activity == _LENT).any():
        at = pieces.span[int(np.argmax(activity == _LENT))]
        server, start_ns = servers["server_id"][at], servers["start_ns"][at]
        raise AnalysisError(
            f"server {server} reports 'lent' from {start_ns} ns, but the run is not colocated"
        )
    generating = activity == _GENERATE
    # The minimum: rounding the parts of a split span may give a nanosecond too much.
    prefill = np.minimum(pieces.part("prefill_ns") * generating, length)
    recompute = np.minimum(pieces.part("recompute_ns") * generating, length - prefill)
    np.add.at(account, (pieces.window, _SERVER_CAUSE[activity]), length - prefill - recompute)
    np.add.at(account[:, _INDEX["prefill"]], pieces.window, prefill)
    np.add.at(account[:, _INDEX["recompute"]], pieces.window, recompute)
    return account


def _overlaps(servers: Spans, trainer: Spans, pieces: Pieces, activity: Ints) -> tuple[Ints, Ints]:
    """How long each piece the trainer has the GPU: while busy, and while down. Colocated only."""
    is_down = trainer["activity"] == _TRAINER_DOWN
    is_busy = (trainer["activity"] != _TRAINER_IDLE) & ~is_down
    busy = _time_in(trainer, is_busy)
    taken = busy(pieces.end_ns) - busy(pieces.start_ns)
    claimed = (taken > 0) & (activity != _LENT) & (activity != _DOWN)
    if claimed.any():
        at = int(np.argmax(claimed))
        raise AnalysisError(
            f"server {servers['server_id'][pieces.span[at]]} reports "
            f"{SERVER_ACTIVITIES[activity[at]]!r} from {pieces.start_ns[at]} ns to "
            f"{pieces.end_ns[at]} ns, but the colocated trainer is busy for {taken[at]} ns of it"
        )
    down = _time_in(trainer, is_down)
    broken = np.where(activity == _LENT, down(pieces.end_ns) - down(pieces.start_ns), 0)
    return taken, broken


def _time_in(spans: Spans, chosen: NDArray[np.bool_]) -> Callable[[Ints], Ints]:
    """The function "time in chosen spans before t"; spans sorted and disjoint."""
    start, end = spans["start_ns"][chosen], spans["end_ns"][chosen]
    total = np.concatenate([[0], np.cumsum(end - start)])
    last_end = np.concatenate([[0], end])

    def before(time_ns: Ints) -> Ints:
        begun = np.searchsorted(start, time_ns, "right")
        result: Ints = total[begun] - np.maximum(last_end[begun] - time_ns, 0)
        return result

    return before


def _close(
    recorder: RunRecorder,
    start_ns: int,
    end_ns: int,
    server_ns: list[int],
    trainer_ns: list[int],
    busy_ns: int,
) -> Accounts:
    """Turn device time into GPU time, in Python's unbounded integers, and balance the books."""
    facts = recorder.facts
    length_ns = end_ns - start_ns
    gpu_ns = {
        cause.key: by_server * facts.gpus_per_server + by_trainer * facts.training_gpus
        for cause, by_server, by_trainer in zip(CAUSES, server_ns, trainer_ns, strict=True)
    }
    if facts.colocated:
        gpu_ns["unused"] = busy_ns * (facts.gpus - facts.training_gpus)
        gpu_ns["unused"] += (length_ns - busy_ns) * (facts.gpus - facts.server_gpus)
    else:
        gpu_ns["unused"] = length_ns * (facts.gpus - facts.server_gpus - facts.training_gpus)
    # The rest: GPUs of servers that have not joined yet; or less than nothing, where a lost
    # server goes on saying "down" of GPUs that another one has under a new id.
    gpu_ns["server_down"] += facts.gpus * length_ns - sum(gpu_ns.values())
    if gpu_ns["server_down"] < 0:
        raise AnalysisError(
            f"from {start_ns} to {end_ns} ns the spans claim {-gpu_ns['server_down']} GPU-ns more "
            f"than {facts.gpus} GPUs have: run.servers = {facts.servers} of "
            f"{facts.gpus_per_server} GPUs, run.training_gpus = {facts.training_gpus}"
        )
    return Accounts(start_ns, end_ns, facts.gpus, gpu_ns)


class Pieces:
    """Spans cut at bounds, one row per span and window it reaches into.

    Attributes:
        window: which window, shape (pieces,).
        span: index of the span.
        start_ns, end_ns, length: of the piece.
    """

    def __init__(self, spans: Spans, bounds: Ints) -> None:
        self._spans = spans
        start = np.maximum(spans["start_ns"], bounds[0])
        end = np.minimum(spans["end_ns"], bounds[-1])
        inside = np.flatnonzero(start < end)
        start, end = start[inside], end[inside]
        first = np.searchsorted(bounds, start, "right") - 1
        count = np.searchsorted(bounds, end, "left") - first
        which = np.repeat(np.arange(len(inside)), count)
        within = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
        self.window: Ints = first[which] + within
        self.span: Ints = inside[which]
        self.start_ns: Ints = np.maximum(start[which], bounds[self.window])
        self.end_ns: Ints = np.minimum(end[which], bounds[self.window + 1])
        self.length: Ints = self.end_ns - self.start_ns

    def part(self, name: str) -> Ints:
        """What of a span's amount falls into each piece: all of a whole span's, else its share."""
        whole = (self._spans["end_ns"] - self._spans["start_ns"])[self.span]
        amount = self._spans[name][self.span]
        offset = self.start_ns - self._spans["start_ns"][self.span]
        rate = amount / whole
        share = (rate * (offset + self.length)).astype(np.int64) - (rate * offset).astype(np.int64)
        return np.where(self.length == whole, amount, share)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
