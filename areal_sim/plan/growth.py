"""Planning over a run whose answers grow longer: one split for all of it, or two.

The run is cut into parts of equal length, each with the mean length of its middle. A plan is made
for the first part, for the last and for a middling one; each of them is simulated in every part.
Changing from one to another on the way means a checkpoint, new processes, and loading it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

from areal_sched.errors import ConfigError
from areal_sim.plan.answer import comment_of
from areal_sim.plan.base import length_scale, text_of
from areal_sim.plan.question import Question
from areal_sim.plan.real import real_tables
from areal_sim.plan.rounds import FIRST
from areal_sim.plan.search import Progress, Search
from areal_sim.plan.space import Candidate
from areal_sim.pools.local import LocalPool

PARTS = 4
"""Parts of the run. Lengths within one differ by a quarter of the whole growth."""

RESTART_S = 600.0
"""Stopping a run and starting it with another split: servers and trainer load, CUDA graphs are
captured, the first batch fills the servers. Assumed; SGLang and Megatron-Core start in minutes."""

MOST_GROWTH = 10.0
"""Answers that grow or shrink by more are another task."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stretch of the run with one split.

    Attributes:
        candidate: how it runs.
        first_step, steps: of the stretch.
        hours: that it takes, without a restart.
    """

    candidate: Candidate
    first_step: int
    steps: int
    hours: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Growing:
    """The answer for a run whose answers grow.

    Attributes:
        question: what was asked, with the lengths of the start.
        growth: how many times as long answers are at the end.
        factors: of each part, how many times as long as at the start its answers are.
        one: the best single split.
        two: the best pair of splits, with a restart between; None if both would be the same.
        restart_h: what the restart takes.
        step_s: seconds of a step, by candidate, for each part.
        tomls: configurations by file name: the better of `one` and `two`.
    """

    question: Question
    growth: float
    factors: tuple[float, ...]
    one: Stage
    two: tuple[Stage, Stage] | None
    restart_h: float
    step_s: dict[Candidate, tuple[float, ...]]
    tomls: dict[str, str]

    @property
    def two_hours(self) -> float:
        """Hours with a second split; infinite if there is none."""
        if self.two is None:
            return math.inf
        return sum(stage.hours for stage in self.two) + self.restart_h


def plan_growth(
    question: Question,
    growth: float,
    *,
    cache: Path,
    jobs: int | None = None,
    progress: Progress = lambda stage, done, of: None,
) -> Growing:
    """Plan a run whose answers grow steadily.

    Args:
        question: with the lengths of the first step; its objective is ``hours``.
        growth: answers of the last step are so many times as long.
        cache: see `areal_sim.plan.plan`; so are the next two.
        jobs: processes.
        progress: takes stage, done and wanted.

    Raises:
        ConfigError: the growth makes no sense, or the objective is another.
        Infeasible: there is no answer for one of the parts.
    """
    if not (math.isfinite(growth) and 1 / MOST_GROWTH <= growth <= MOST_GROWTH):
        raise ConfigError(
            f"growth = {growth!r}: expected a number from {1 / MOST_GROWTH:g} to {MOST_GROWTH:g}"
        )
    if question.objective != "hours" or question.deadline_h or question.budget_usd:
        raise ConfigError(
            f"growth = {growth!r}: only for the objective hours, without deadline or budget"
        )
    if question.steps < PARTS:
        raise ConfigError(f"growth = {growth!r}: needs at least {PARTS} steps")
    parts = tuple(1 + (growth - 1) * (part + 0.5) / PARTS for part in range(PARTS))
    with LocalPool(jobs) as pool:
        searches = [
            Search(_with_length(question, factor), cache=cache, pool=pool, progress=progress)
            for factor in parts
        ]
        found = {searches[part].run()[0].candidate: () for part in (0, PARTS // 2, PARTS - 1)}
        times: dict[Candidate, tuple[float, ...]] = dict(found)
        for search in searches:
            for finding in search.simulate(found, FIRST, "every part"):
                times[finding.candidate] += (finding.step_s,)
    return compare(question, growth, parts, times)


def _with_length(question: Question, factor: float) -> Question:
    return dataclasses.replace(question, length_scale=length_scale(question) * factor)


def compare(
    question: Question,
    growth: float,
    factors: tuple[float, ...],
    times: dict[Candidate, tuple[float, ...]],
) -> Growing:
    """The best single split and the best pair, from the seconds of a step in each part."""
    bounds = [round(question.steps * part / PARTS) for part in range(PARTS + 1)]
    steps = [end - start for start, end in itertools.pairwise(bounds)]

    def stage(candidate: Candidate, first: int, end: int) -> Stage:
        seconds = sum(times[candidate][part] * steps[part] for part in range(first, end))
        return Stage(
            candidate=candidate,
            first_step=bounds[first],
            steps=bounds[end] - bounds[first],
            hours=seconds / 3600,
        )

    one = min((stage(each, 0, PARTS) for each in times), key=lambda each: each.hours)
    pairs = [
        (stage(before, 0, border), stage(after, border, PARTS))
        for before in times
        for after in times
        for border in range(1, PARTS)
        if (before.gpu, before.layout) != (after.gpu, after.layout)
    ]
    two = min(pairs, key=lambda pair: pair[0].hours + pair[1].hours, default=None)
    restart_h = RESTART_S / 3600
    stages = [one]
    if two is not None and two[0].hours + two[1].hours + restart_h < one.hours:
        stages = list(two)
    tomls = {}
    for number, each in enumerate(stages, start=1):
        name = "plan.toml" if len(stages) == 1 else f"plan-{number}.toml"
        middle = (each.first_step + each.steps / 2) / question.steps
        own = dataclasses.replace(
            _with_length(question, 1 + (growth - 1) * middle), steps=each.steps
        )
        note = f"{comment_of(own, each.candidate)}\n# Steps {each.first_step + 1} to"
        note += f" {each.first_step + each.steps} of {question.steps}: {each.hours:.1f} h."
        tomls[name] = text_of(own, each.candidate, note) + real_tables(own, each.candidate)
    return Growing(
        question=question,
        growth=growth,
        factors=factors,
        one=one,
        two=two,
        restart_h=restart_h,
        step_s=times,
        tomls=tomls,
    )
