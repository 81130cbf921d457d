"""What a configuration comes to: at once by estimate, in a second by simulating a slice of it."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from areal_sim.config import RunConfig, config_sha256
from areal_sim.plan import Finding, Question
from areal_sim.plan.base import config_of
from areal_sim.plan.rounds import STEPS_OF_TURNS, TURNS, Round, part_of
from areal_sim.plan.search import Search
from areal_sim.plan.space import Candidate
from areal_sim.ui.start import Start
from areal_sim.worth import Worth, worth_of

if TYPE_CHECKING:
    from areal_sim.rundir import Outcome, Progress

LOOK = Round(trajectories=512, steps=10, steps_per_batch=0)
"""How a what-if simulates: half the planner's first look, and always as long, so that what it is
compared with needs no simulation of its own."""

MOST_TRAJECTORIES = 6_000
"""Of one look: half a second. Where no smaller slice can be cut, it has fewer steps."""

MOST_PAIRED = 1024
"""Trajectories of a step up to which base and change are cut alike."""

LEAST_STEPS = 3

KEPT = 128
"""Looks that are remembered."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """What the page shows of a configuration.

    Attributes:
        step_s: a training step.
        hours, cost_usd, energy_kwh, gpu_hours: of all steps.
        idle_generation, idle_training: shares of their GPUs' time.
        lag: mean, versions.
    """

    step_s: float
    hours: float
    cost_usd: float
    energy_kwh: float
    gpu_hours: float
    idle_generation: float
    idle_training: float
    lag: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A short simulation of a slice.

    Attributes:
        numbers: of the whole run, as far as the slice tells.
        part, steps: what was simulated: one so-manieth of the cluster, so many steps.
        shares: GPU time by cause, see `analysis.causes`.
    """

    numbers: Numbers
    part: int
    steps: int
    shares: dict[str, float]


def estimate(question: Question, candidate: Candidate) -> Numbers:
    """The closed form's numbers, in milliseconds."""
    search = _search(question)
    found = search.estimator.of(search.space(candidate.gpu, candidate.gpus), candidate)
    worth = search.estimator.worth(found)
    return Numbers(
        step_s=found.step_s,
        hours=worth.hours,
        cost_usd=worth.cost_usd,
        energy_kwh=worth.energy_kwh,
        gpu_hours=worth.gpu_hours,
        idle_generation=max(0.0, 1 - found.generation_s / found.step_s),
        idle_training=max(0.0, 1 - found.training_s / found.step_s),
        lag=found.lag,
    )


def found_by_plan(finding: Finding) -> Numbers:
    """The planner's own numbers."""
    return _numbers(finding.summary, finding.step_s, finding.worth)


def changed(known: Numbers, before: Numbers, after: Numbers) -> Numbers:
    """What is known of the base, changed as two looks of the same kind differ.

    Times, money and energy by their ratio, shares and lags by their difference.
    """
    ratios = ("step_s", "hours", "cost_usd", "energy_kwh", "gpu_hours")
    values = {
        name: getattr(known, name) * getattr(after, name) / getattr(before, name) for name in ratios
    }
    for name, most in (("idle_generation", 1.0), ("idle_training", 1.0), ("lag", math.inf)):
        moved = getattr(known, name) + getattr(after, name) - getattr(before, name)
        values[name] = min(max(moved, 0.0), most)
    return Numbers(**values)


def cut(question: Question, candidate: Candidate) -> tuple[int, int]:
    """(slice, steps) of a look at a candidate.

    Raises:
        ConfigError: the candidate cannot be simulated.
    """
    config = config_of(question, candidate)
    part = part_of(config, LOOK.trajectories)
    steps = LOOK.steps_of(config)
    if _takes_turns(candidate):
        steps = min(steps, STEPS_OF_TURNS - 2)
    most = MOST_TRAJECTORIES * part // config.train_batch_rollouts
    return part, max(min(LEAST_STEPS, steps), min(steps, most))


class Looks:
    """Short simulations, one at a time, the latest remembered."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Look] = OrderedDict()
        self._lock = threading.Lock()

    def look(
        self,
        question: Question,
        candidate: Candidate,
        *,
        part: int,
        steps: int,
        progress: Callable[[Progress], None] | None = None,
    ) -> Look:
        """Simulate a slice of a candidate.

        Args:
            question: what was asked.
            candidate: what to simulate.
            part: simulate one so-manieth, see `cut`.
            steps: simulate so many.
            progress: called a few times; may raise to give up.

        Raises:
            ConfigError: it cannot be simulated.
        """
        search = _search(question)
        whole, short = _configs(search, candidate, part, steps)
        key = config_sha256(short) + f" {question.steps}"
        if (kept := self._kept.get(key)) is not None:
            return kept
        with self._lock:  # two at a time take twice as long, both of them
            summary = _simulate(short, progress).summary
        step_s = search.steady_s(short, summary)
        found = Look(
            numbers=_numbers(summary, step_s, worth_of(whole, summary, step_s)),
            part=part,
            steps=steps,
            shares={name: float(share) for name, share in summary["gpu_time_share"].items()},
        )
        self._kept[key] = found
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A what-if beside what it started from.

    Attributes:
        before, after: numbers of both.
        shares_before, shares_after: GPU time by cause; empty for an estimate.
        look: what was simulated of the changed one; None: nothing was, it is an estimate.
    """

    before: Numbers
    after: Numbers
    shares_before: dict[str, float] = dataclasses.field(default_factory=dict)
    shares_after: dict[str, float] = dataclasses.field(default_factory=dict)
    look: Look | None = None


def compare_estimates(start: Start, question: Question, candidate: Candidate) -> Compared:
    """A what-if at once. With a plan its numbers change as the estimates do."""
    before = estimate(start.question, start.base)
    after = estimate(question, candidate)
    if start.plan is None:
        return Compared(before=before, after=after)
    known = found_by_plan(start.plan.best)
    return Compared(before=known, after=changed(known, before, after))


def compare_looks(
    looks: Looks,
    start: Start,
    question: Question,
    candidate: Candidate,
    progress: Callable[[Progress], None] | None = None,
) -> Compared:
    """A what-if by simulation: both on slices of the same size and for as long, if that is quick.

    Raises:
        ConfigError: the changed configuration cannot be simulated.
    """
    own_part, own_steps = cut(start.question, start.base)
    part, steps = cut(question, candidate)
    own = looks.look(start.question, start.base, part=own_part, steps=own_steps, progress=progress)
    common = math.gcd(part, own_part)
    if question.train_batch_rollouts // common <= MOST_PAIRED:
        # A slice of another size is off by a per cent or two.
        part = own_part = common
    if not _takes_turns(start.base) and not _takes_turns(candidate):
        own_steps = steps = min(steps, own_steps)
    after = looks.look(question, candidate, part=part, steps=steps, progress=progress)
    paired = looks.look(
        start.question, start.base, part=own_part, steps=own_steps, progress=progress
    )
    known = own.numbers if start.plan is None else found_by_plan(start.plan.best)
    return Compared(
        before=known,
        after=changed(known, paired.numbers, after.numbers),
        shares_before=paired.shares,
        shares_after=after.shares,
        look=after,
    )


def _takes_turns(candidate: Candidate) -> bool:
    return candidate.scheduler in TURNS or candidate.eta == 0


def timeline(question: Question, candidate: Candidate) -> bytes:
    """A picture (PNG) of what servers and trainer do in a few steps of a slice."""
    from analysis.drawing import png_of
    from analysis.timeline import timeline_figure

    part, steps = cut(question, candidate)
    short = _configs(_search(question), candidate, part, steps)[1]
    name = f"{question.shape().name}, 1/{part} of the cluster" if part > 1 else "whole cluster"
    recorder = _simulate(short, None, name).recorder
    return png_of(timeline_figure(recorder, steps=4, servers=16))


def _search(question: Question) -> Search:
    # Nothing is kept in the folder: only its estimator and its arithmetic are used.
    return Search(question, cache=Path(tempfile.gettempdir()))


def _configs(
    search: Search, candidate: Candidate, part: int, steps: int
) -> tuple[RunConfig, RunConfig]:
    """The whole run, and the short one of a slice."""
    whole = config_of(search.question, candidate)
    run = search.run_of(candidate, whole, LOOK, part).config
    workload = dataclasses.replace(run.workload, steps=steps)
    return whole, dataclasses.replace(run, workload=workload)


def _simulate(
    config: RunConfig, progress: Callable[[Progress], None] | None, name: str = "what if"
) -> Outcome:
    from areal_sim.rundir import simulate

    return simulate(config, name=name, progress=progress)


def _numbers(summary: dict[str, Any], step_s: float, worth: Worth) -> Numbers:
    return Numbers(
        step_s=step_s,
        hours=worth.hours,
        cost_usd=worth.cost_usd,
        energy_kwh=worth.energy_kwh,
        gpu_hours=worth.gpu_hours,
        idle_generation=float(summary["idle_share"]["generation"]),
        idle_training=float(summary["idle_share"]["training"] or 0.0),
        lag=float(summary["lag"]["mean"] or 0.0),
    )
