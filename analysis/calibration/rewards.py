"""How long rewards take, and how long answers and prompts are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heapreplace
from typing import TYPE_CHECKING

import numpy as np

from analysis.calibration.engine import Part
from areal_sched import events as e
from areal_sched.journal import Entry, Measured
from areal_sched.records import Phase

if TYPE_CHECKING:
    import pandas as pd

NS = 1e-9
MOST_VARIATION = 3.0
"""Coefficient of variation beyond which a lognormal is no description any more."""


@dataclass(frozen=True, slots=True)
class RewardTimes:
    """Service times of one worker: mean in seconds, coefficient of variation, rewards seen."""

    mean_s: float
    variation: float
    samples: int


def reward_times(
    items: Iterable[Entry | Measured], workers: int, since_ns: int = 0, until_ns: int = 1 << 62
) -> RewardTimes | None:
    """Service times from a journal: first come, first served, by so many workers.

    Args:
        items: the journal.
        workers: of the run.
        since_ns: rewards before it are not counted.
        until_ns: nor those after it.

    Returns:
        None if there are no rewards.
    """
    finished: dict[int, int] = {}
    free = [0] * max(1, workers)  # when each worker is free again
    seconds = []
    for item in items:
        if isinstance(item, Measured):
            continue
        if isinstance(item.event, e.RolloutFinished):
            finished[item.event.rollout_id] = item.now_ns
        elif isinstance(item.event, e.RewardComputed):
            came_ns = finished.pop(item.event.rollout_id, None)
            if came_ns is not None:
                if since_ns <= item.now_ns <= until_ns:
                    seconds.append((item.now_ns - max(came_ns, free[0])) * NS)
                heapreplace(free, item.now_ns)
    if not seconds:
        return None
    mean = float(np.mean(seconds))
    variation = float(np.std(seconds)) / mean if mean > 0 else 0.0
    return RewardTimes(mean, min(variation, MOST_VARIATION), len(seconds))


def workload(parts: Iterable[Part]) -> pd.DataFrame:
    """Lengths of whole groups that were trained in these parts, as a workload table.

    Raises:
        ValueError: no whole group was trained there.
    """
    import pandas as pd

    from traces.schema import validate

    tables = []
    first = 0
    for part in parts:
        rows = part.recorder.trajectories
        settled_ns = part.recorder.settlement("settled_ns")
        kept = (
            (part.recorder.settlement("phase") == Phase.TRAINED)
            & (settled_ns > part.since_ns)
            & (settled_ns <= part.until_ns)
        )
        table = pd.DataFrame(
            {
                "group_id": np.asarray(rows["group_id"], np.int64)[kept],
                "prompt_tokens": np.asarray(rows["prompt_tokens"])[kept],
                "response_tokens": np.asarray(rows["generated_tokens"])[kept],
            }
        )
        size = part.recorder.facts.group_size
        whole = table.groupby("group_id")["group_id"].transform("size") == size
        table = table[whole & (table["response_tokens"] > 0)].copy()
        table["group_id"] += first - (table["group_id"].min() if len(table) else 0)
        first = int(table["group_id"].max()) + 1 if len(table) else first
        tables.append(table)
    joined = pd.concat(tables, ignore_index=True)
    if not len(joined):
        raise ValueError("no group of rollouts was trained as a whole: there are no lengths to use")
    joined["prompt_id"] = joined["group_id"]
    joined["sample_index"] = joined.groupby("group_id").cumcount()
    return validate(joined)
