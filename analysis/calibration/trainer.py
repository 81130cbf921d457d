"""What the phases of a training step cost, from its spans and what it trained on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.calibration.engine import Part, slowness
from analysis.calibration.host import Demand
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
    parts: Sequence[tuple[Part, TrainerLayout]], demand: Demand | None = None
) -> TrainerFit:
    """Fit the phases of the training steps that lie in parts of runs.

    Args:
        parts: each with the layout of its trainer.
        demand: how servers and trainer share a machine, if they do; what that costs the trainer is
            taken off.

    Raises:
        ValueError: no training step lies there.
    """
    rows: dict[str, list[tuple[Floats, float]]] = defaultdict(list)
    for part, layout in parts:
        for activity, work, seconds in _phases(part, layout, demand):
            rows[activity].append((work, seconds))

    def constant(activity: str) -> Fit | None:
        found = rows[activity]
        if not found:
            return None
        seconds = np.array([x for _, x in found])
        return fit(
            activity,
            (f"{activity}_s",),
            np.array([work[:1] for work, _ in found]),
            seconds,
            np.ones(len(seconds)),
        )

    def per_micro_batch(activity: str) -> Fit | None:
        found = rows[activity]
        if not found:
            return None
        seconds = np.array([x for _, x in found])
        return fit(activity, MICRO_BATCH, np.array([w for w, _ in found]), seconds, seconds)

    minibatch = per_micro_batch("minibatch")
    if minibatch is None:
        raise ValueError("the journal has no training step that could be fitted")
    return TrainerFit(
        minibatch=minibatch,
        proximal=per_micro_batch("proximal"),
        optimizer=constant("optimizer"),
        overhead=constant("overhead"),
        publish=constant("publish"),
        save=constant("save"),
    )


def _phases(
    part: Part, layout: TrainerLayout, demand: Demand | None
) -> Iterator[tuple[str, Floats, float]]:
    """Activity, its work (micro-batches, tokens, squared tokens) times slowness, and seconds."""
    spans = _spans(part.recorder, part.since_ns, part.until_ns)
    slow = np.ones(len(spans["start_ns"]))
    if demand is not None:
        slowdown = demand.trainer_slowdown(part.recorder.facts.servers)
        slow = slowness(_served(part.recorder, spans), slowdown)
    work = _work(part.recorder, layout)
    seconds = (spans["end_ns"] - spans["start_ns"]) * NS
    names = [TRAINER_ACTIVITIES[x] for x in spans["activity"]]
    versions = spans["weight_version"].tolist()
    minibatches = Counter(v for v, name in zip(versions, names, strict=True) if name == "minibatch")
    seen: Counter[int] = Counter()
    for row, (name, version) in enumerate(zip(names, versions, strict=True)):
        of_step = work.get(version)
        if name in ("minibatch", "proximal"):
            if of_step is None or minibatches[version] != len(of_step):
                continue  # a step that was not finished, or lies over an edge
            if name == "minibatch":
                own = of_step[seen[version]]
                seen[version] += 1
            else:
                own = np.sum(of_step, axis=0)
        elif name in ("idle", "down", "switch"):
            continue
        else:
            own = np.ones(1)
        yield name, own * slow[row], float(seconds[row])


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
    # The pipeline fills and drains, as if micro-batches were equal.
    scaled: Floats = slowest * ((micros + layout.pipeline_parallel - 1) / micros)
    return scaled
