"""The controller's side of a run forgets what is settled: to the byte, with made-up parts.

The soak (`benchmarks.soak`) looks at real processes from outside and cannot see a few hundred bytes
of a trajectory; here every allocation has the line that made it.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from areal_real import feed, live
from areal_real.checkpoints import Checkpoints
from areal_real.folder import RunFolder
from areal_real.live import Setting
from areal_real.run import Run, header_of
from tests.house.repo import ROOT
from tests.real.run.fakes import Counting, MadeUpBackend, Silent, Troubles
from tests.real.run.test_run_laws import config_of

EVERY = 4
FIRST, LAST = (36, 38, 40), (156, 158, 160)
PACKAGES = ("areal_real", "areal_sched")

MOST_BYTES = 12_000
"""A file may hold so much more after 120 further steps, at the least of three looks each time: a
few more rollouts happen to be alive, and numbers above 256 take memory, which smaller ones do not.
At 6 trajectories a step, one number kept of each would be 26,000."""

TROUBLES = Troubles(reward_fails=0.05, rollout_fails=0.01)


class Weighing(Silent):
    """Weighs what each file's lines have allocated and nobody has freed, at some steps."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[int, Counter[str]] = {}

    def step(self, row: dict[str, float], steps: int) -> None:
        step = int(row["step"])
        if step in FIRST + LAST:
            gc.collect()
            found: Counter[str] = Counter()
            for stat in tracemalloc.take_snapshot().statistics("filename"):
                path = Path(stat.traceback[0].filename)
                if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in PACKAGES:
                    found[str(path.relative_to(ROOT))] += stat.size
            self.bytes[step] = found


def weighed(folder: Path, scheduler: dict[str, Any]) -> dict[str, int]:
    """Bytes by which each file's allocations have grown over 120 steps."""
    config = config_of(scheduler, LAST[-1], 2, EVERY)
    watcher = Weighing()
    run = RunFolder(folder)
    setting = Setting(
        config=config,
        header=header_of(config, "test", "0" * 64),
        folder=run,
        backend=MadeUpBackend(run, 1, TROUBLES),
        task=Counting(),
        watcher=watcher,
        checkpoints=Checkpoints(run.checkpoints, keep=config.real.keep_checkpoints),
    )
    tracemalloc.start()
    try:
        assert asyncio.run(Run(setting).go(resume=False)).steps == LAST[-1]
    finally:
        tracemalloc.stop()
    first, last = ([watcher.bytes[step] for step in steps] for steps in (FIRST, LAST))
    assert all(sum(found.values()) > 0 for found in last)
    return {
        name: min(found[name] for found in last) - min(found[name] for found in first)
        for name in set().union(*last)
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "scheduler",
    [
        {"class": "areal", "unit": "group"},
        {"class": "partial_rollout"},
    ],
    ids=lambda x: "-".join(map(str, x.values())),
)
def test_no_file_of_ours_holds_more_after_120_further_steps(
    tmp_path: Path, scheduler: dict[str, Any]
) -> None:
    grown = weighed(tmp_path, scheduler)
    assert {name: size for name, size in grown.items() if size > MOST_BYTES} == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "name", "file"),
    [
        (feed.ProblemFeed, "forget", "areal_real/feed.py"),
        (live.Live, "_tidy", "areal_real/live.py"),
    ],
)
def test_what_is_kept_by_mistake_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: type, name: str, file: str
) -> None:
    """Were prompts of settled groups, or the numbers of settled rollouts, not forgotten."""
    monkeypatch.setattr(place, name, lambda *args: None)
    grown = weighed(tmp_path, {"class": "areal"})
    assert grown[file] > MOST_BYTES
