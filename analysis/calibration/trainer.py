"""What the phases of a training step cost, from its spans and what it trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.calibration.least_squares import Fit, Floats, fit
from analysis.recorder import SERVER_ACTIVITIES, TRAINER_ACTIVITIES, RunRecorder
from areal_sched.packing import pack

NS = 1e-9

MICRO_BATCH = ("base_s", "per_token_s", "per_token_pair_s")
"""Coefficients of `areal_sim.costs.TrainerCost` for one micro-batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerLayout:
    """How a trainer lays out its batches, as a real run's journal says.

    Attributes:
        data_parallel, pipeline_parallel, minibatches, micro_batch_tokens: as configured.
    """

    data_parallel: int
    pipeline_parallel: int
    minibatches: int
    micro_batch_tokens: int


@dataclass(frozen=True, slots=True)
class TrainerFit:
    """One fit a phase; None for a phase that the run had not."""

    minibatch: Fit
    proximal: Fit | None
    optimizer: Fit | None
    overhead: Fit | None
    publish: Fit | None
    save: Fit | None


def fit_trainer(
    recorder: RunRecorder, layout: TrainerLayout, slowdown: float, since_ns: int, until_ns: int
) -> TrainerFit:
    """Fit the phases of the training steps that lie in a part of a run.

    Args:
        recorder: the run.
        layout: of its trainer.
        slowdown: by servers that work meanwhile, see `analysis.calibration.engine`.
        since_ns: begin of the part.
        until_ns: its end.

    Raises:
        ValueError: no training step lies there.
    """
    spans = _spans(recorder, since_ns, until_ns)
    slow = 1 + slowdown * _served(recorder, spans)
    work = _work(recorder, layout)
    seconds = (spans["end_ns"] - spans["start_ns"]) * NS

    def of(activity: str) -> NDArray[np.int64]:
        return np.flatnonzero(spans["activity"] == TRAINER_ACTIVITIES.index(activity))

    def constant(activity: str) -> Fit | None:
        rows = of(activity)
        if not len(rows):
            return None
        column = slow[rows][:, None]
        return fit(activity, (f"{activity}_s",), column, seconds[rows], np.ones(len(rows)))

    def per_micro_batch(activity: str, design: Sequence[Floats], rows: NDArray[np.int64]) -> Fit:
        columns = np.array(design) * slow[rows][:, None]
        return fit(activity, MICRO_BATCH, columns, seconds[rows], seconds[rows])

    rows, design = _matched(of("minibatch"), spans["weight_version"], work)
    if not len(rows):
        raise ValueError("the journal has no training step that could be fitted")
    forward_rows = [x for x in of("proximal").tolist() if spans["weight_version"][x] in work]
    forward = [np.sum(work[int(spans["weight_version"][x])], axis=0) for x in forward_rows]
    return TrainerFit(
        minibatch=per_micro_batch("minibatch", design, rows),
        proximal=per_micro_batch("proximal", forward, np.array(forward_rows)) if forward else None,
        optimizer=constant("optimizer"),
        overhead=constant("overhead"),
        publish=constant("publish"),
        save=constant("save"),
    )


def _spans(recorder: RunRecorder, since_ns: int, until_ns: int) -> dict[str, NDArray[np.int64]]:
    spans = recorder.trainer_spans
    columns = {
        name: np.asarray(spans[name], np.int64)
        for name in ("activity", "weight_version", "start_ns", "end_ns")
    }
    inside = (columns["start_ns"] >= since_ns) & (columns["end_ns"] <= until_ns)
    return {name: column[inside] for name, column in columns.items()}


def _served(recorder: RunRecorder, spans: Mapping[str, NDArray[np.int64]]) -> Floats:
    """Share of each span in which a server worked; of several servers the mean."""
    servers = recorder.server_spans
    activity = np.asarray(servers["activity"], np.int64)
    works = np.isin(activity, [SERVER_ACTIVITIES.index(x) for x in ("generate", "load")])
    start = np.asarray(servers["start_ns"], np.int64)[works]
    end = np.asarray(servers["end_ns"], np.int64)[works]
    count = len(np.unique(servers["server_id"])) or 1
    shared = np.zeros(len(spans["start_ns"]))
    for row, (a, b) in enumerate(zip(spans["start_ns"], spans["end_ns"], strict=True)):
        overlap = np.minimum(end, b) - np.maximum(start, a)
        shared[row] = np.maximum(overlap, 0).sum() / max(b - a, 1) / count
    return shared


def _work(recorder: RunRecorder, layout: TrainerLayout) -> dict[int, list[Floats]]:
    """By version made: of each minibatch (micro-batches, tokens, squared tokens), slowest rank."""
    batches = recorder.trained_batches()
    rows = recorder.trajectories
    sizes = np.asarray(rows["prompt_tokens"], np.int64) + rows["generated_tokens"]
    work: dict[int, list[Floats]] = {}
    for first, end, version in zip(
        batches["first_row"], batches["end_row"], batches["weight_version"], strict=True
    ):
        own = sizes[first:end].tolist()
        packed = pack(
            own,
            capacity=max(layout.micro_batch_tokens, *own),
            ranks=layout.data_parallel,
            minibatches=layout.minibatches,
        )
        work[int(version)] = [_slowest(ranks, own, layout) for ranks in packed]
    return work


def _slowest(ranks: list[list[list[int]]], sizes: list[int], layout: TrainerLayout) -> Floats:
    sums = []
    for rank in ranks:
        tokens = [[sizes[x] for x in micro] for micro in rank]
        flat = [x for micro in tokens for x in micro]
        sums.append(np.array([len(rank), sum(flat), sum(x * x for x in flat)], float))
    slowest = max(sums, key=lambda x: x[1])
    micros = max(slowest[0], 1)
    # The pipeline fills and drains: see `areal_sim.costs.protocol.train_rank_s`.
    scaled: Floats = slowest * ((micros + layout.pipeline_parallel - 1) / micros)
    return scaled


def _matched(
    rows: NDArray[np.int64], versions: NDArray[np.int64], work: Mapping[int, list[Floats]]
) -> tuple[NDArray[np.int64], list[Floats]]:
    """Spans of minibatches and the work of each, for steps whose minibatches are all there."""
    found: list[int] = []
    design: list[Floats] = []
    for version in np.unique(versions[rows]).tolist():
        own = rows[versions[rows] == version].tolist()
        if len(own) == len(work.get(version, ())):
            found += own
            design += work[version]
    return np.array(found, np.int64), design
