"""The answer to a question, with what it rests on."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from areal_sim.plan.base import text_of
from areal_sim.plan.estimate import Estimate
from areal_sim.plan.finding import Finding
from areal_sim.plan.question import Question
from areal_sim.plan.real import real_tables
from areal_sim.plan.rounds import LAST
from areal_sim.plan.search import Progress, Search
from areal_sim.plan.space import Candidate
from areal_sim.plan.uncertainty import Spread, spread_of
from areal_sim.plan.what_if import Change, bottleneck, what_ifs
from areal_sim.pools.local import LocalPool
from areal_sim.worth import Worth


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to rent and how to run it.

    Attributes:
        question: what was asked.
        best: the answer.
        runner_up: the best answer with another layout or schedule; None if there is none.
        baseline: the best synchronous run on the same GPUs; None if none fits.
        changes: what single changes would do, the greatest gain first.
        bottleneck: what the answer waits for, in a sentence.
        spread: how far the hours may be off; None with costs that no run was ever held against.
        findings: everything that was simulated.
        estimates: everything that was estimated, the best first.
        guesses: what each of them would come to.
        refused: layouts of the answer's GPUs that do not fit in memory and why, nearest first.
        toml: the configuration, for `areal-sim run` and `areal-real train`.
    """

    question: Question
    best: Finding
    runner_up: Finding | None
    baseline: Finding | None
    changes: tuple[Change, ...]
    bottleneck: str
    spread: Spread | None
    findings: tuple[Finding, ...]
    estimates: tuple[Estimate, ...]
    guesses: tuple[Worth, ...]
    refused: tuple[str, ...]
    toml: str


def plan(
    question: Question,
    *,
    cache: Path | None = None,
    jobs: int | None = None,
    progress: Progress = lambda stage, done, of: None,
) -> Plan:
    """Answer a question.

    Args:
        question: what is asked.
        cache: folder in which simulations are kept, so that an interrupted plan goes on and a
            similar question is answered sooner; None keeps nothing.
        jobs: processes; the machine's cores by default.
        progress: takes the stage, how much of it is done and how much there is.

    Raises:
        ConfigError: the question contradicts itself.
        Infeasible: there is no answer; says why and what would change that.
    """
    if cache is None:
        with tempfile.TemporaryDirectory(prefix="areal-plan-") as folder:
            return plan(question, cache=Path(folder), jobs=jobs, progress=progress)
    with LocalPool(jobs) as pool:
        return _answered(Search(question, cache=cache, pool=pool, progress=progress))


def _answered(search: Search) -> Plan:
    """The answer, by a search that has not begun."""
    question = search.question
    ranked = search.run()
    best = ranked[0]
    changes = what_ifs(search, best)
    others = [finding for finding in search.ranked() if finding.candidate != best.candidate]
    baseline = None
    if (candidate := search.baseline(best.candidate)) is not None:
        found = search.findings.get(candidate)
        baseline = found or search.simulate([candidate], LAST, "synchronous")[0]
    note = comment_of(question, best.candidate) + _predicted(best.worth)
    return Plan(
        question=question,
        best=best,
        runner_up=_runner_up(best, ranked[1:] + others),
        baseline=baseline,
        changes=tuple(changes),
        bottleneck=bottleneck(best, changes),
        spread=spread_of(question, best.candidate),
        findings=tuple(search.findings.values()),
        estimates=tuple(search.estimates),
        guesses=tuple(search.estimator.worth(each) for each in search.estimates),
        refused=search.space(best.candidate.gpu, best.candidate.gpus).refused,
        toml=text_of(question, best.candidate, note) + real_tables(question, best.candidate),
    )


def comment_of(question: Question, candidate: Candidate) -> str:
    """The first lines of a plan's configuration."""
    cluster = f"{candidate.gpus} {candidate.gpu}"
    note = _beyond_one_node(question, candidate)
    return f"""\
# Made by areal-sim plan. Run: areal-sim run FILE, or areal-real train FILE --out DIR
# {question.shape().name} on {cluster}, the least {question.objective}.{note}"""


def _beyond_one_node(question: Question, candidate: Candidate) -> str:
    if candidate.gpus <= question.gpus_per_node:
        return ""
    return (
        "\n# areal-real starts all its processes on one node so far: several are for the simulator."
    )


def _predicted(worth: Worth) -> str:
    return (
        f"\n# Predicted: {worth.hours:.1f} h, {worth.cost_usd:,.0f} USD,"
        f" {worth.energy_kwh:,.0f} kWh."
    )


def _runner_up(best: Finding, others: list[Finding]) -> Finding | None:
    """The next best with another layout or scheduler: other etas are the same answer."""

    def kind(candidate: Candidate) -> tuple[object, ...]:
        return candidate.gpu, candidate.gpus, candidate.layout, candidate.scheduler

    own = kind(best.candidate)
    return next((finding for finding in others if kind(finding.candidate) != own), None)
