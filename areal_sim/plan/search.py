"""From every candidate to the best one: estimate all, simulate few, and those ever longer.

Three rounds. All candidates of the space are estimated in closed form. The best of them are
simulated on a slice of the cluster (``sim.slice``), the best of those for longer, and the best two
on a larger slice. The number of simulations, their slices and their lengths depend on the question
alone, never on the clock, so the same question has the same answer on every machine.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from areal_sim.build import server_memory_of
from areal_sim.config import RunConfig
from areal_sim.memory import DoesNotFit
from areal_sim.plan.base import config_of
from areal_sim.plan.estimate import Estimate, Estimator
from areal_sim.plan.finding import Finding
from areal_sim.plan.infeasible import Infeasible, explain_memory
from areal_sim.plan.limits import explain_limits
from areal_sim.plan.question import Question
from areal_sim.plan.rounds import FIRST, LAST, SECOND, TURNS, Round, Run, part_of
from areal_sim.plan.space import Candidate, Space
from areal_sim.pools import Pool
from areal_sim.sweep import sweep
from areal_sim.worth import steady_step_s, step_of, worth_of

FIRST_CANDIDATES = 8
SECOND_CANDIDATES = 3
PER_LAYOUT = 2
"""Of one layout at most so many candidates are simulated first: the others differ in little. Of
those that differ in eta alone it is the greatest, as the freshness comes later."""

PER_SIZE = 3
"""Of one number of GPUs, where there are several."""

MOST_TRIED = 40
"""After so many simulations none of which keeps the limits, none is believed to."""

TIE = 0.005
"""Two answers that differ by less are equal: then the one with the smaller eta, and with fewer
rollouts in flight, is better: its data are fresher. Another seed makes as much of a difference."""

NEAR = 0.03
"""How far a first or second look may miss a limit and still be looked at more closely."""

SLACK = 0.15
"""How far an estimate may miss a limit and still be simulated: about its error."""


Progress = Callable[[str, int, int], None]
"""Takes what is being done, how much of it is done, and how much there is."""


class Search:
    """Answers one question.

    Args:
        question: what is asked.
        cache: the folder in which simulations are kept.
        pool: where to simulate; processes of this machine by default.
        progress: see `Progress`.

    Attributes:
        estimates: every candidate, the best first.
        findings: what was simulated, by candidate: the largest part of it.
    """

    def __init__(
        self,
        question: Question,
        *,
        cache: Path,
        pool: Pool | None = None,
        progress: Progress = lambda stage, done, of: None,
    ) -> None:
        self.question = question
        self.estimator = Estimator(question)
        self.estimates: list[Estimate] = []
        self.findings: dict[Candidate, Finding] = {}
        self._cache, self._pool, self._progress = cache, pool, progress
        self._tried: set[Candidate] = set()
        self._spaces: dict[tuple[str, int], Space] = {}

    def run(self, *, explain: bool = True) -> list[Finding]:
        """The best answers that were found, the best first, and all of them within the limits.

        Args:
            explain: find out what would do where nothing keeps the limits.

        Raises:
            ConfigError: the question contradicts itself.
            Infeasible: nothing fits, or nothing keeps the limits.
        """
        self.estimate()
        # What misses a limit by little in a first look may keep it. If none does, no slack is left.
        for slack in (NEAR, 0.0):
            if ranked := self._narrowed(slack):
                return ranked
        raise self._nothing(explain)

    def _narrowed(self, slack: float) -> list[Finding]:
        """All three rounds; [] if nothing keeps the limits in the end."""
        ranked = self._first_look(slack)
        if not ranked:
            return []
        if self.question.objective == "gpus":
            ranked = self._fewer_gpus(ranked[0]) or ranked
        kept = [finding.candidate for finding in ranked[:SECOND_CANDIDATES]]
        fresher = [x for x in self._fresher(kept[0]) if x not in kept]
        closer = self.simulate([*kept, *fresher], SECOND, "closer look")
        ranked = self._rank(closer, slack) or ranked
        finalists = [finding.candidate for finding in ranked[:2]]
        return self._rank(self.simulate(finalists, LAST, "final")) or self.ranked()

    def _nothing(self, explain: bool) -> Infeasible:
        """Nothing keeps the limits."""
        return explain_limits(self) if explain else Infeasible("no candidate keeps the limits", [])

    def again(self, question: Question) -> Search:
        """A search for another question, in the same place."""
        return Search(question, cache=self._cache, pool=self._pool, progress=self._progress)

    def _first_look(self, slack: float) -> list[Finding]:
        """Simulate the most promising ones, and more until one keeps the limits; [] if none."""
        while first := self._promising(self._tried):
            self._tried.update(first)
            if ranked := self._rank(self.simulate(first, FIRST, "first look"), slack):
                return ranked
            if len(self._tried) > MOST_TRIED:
                break
        return []

    def _fewer_gpus(self, found: Finding) -> list[Finding]:
        """Sizes between the one that was found and the next smaller one, by bisection."""
        question, candidate = self.question, found.candidate
        offer = next(offer for offer in question.gpus if offer.gpu == candidate.gpu)
        per_node = question.gpus_per_node
        smaller = [size for size in question.counts(offer) if size < candidate.gpus]
        low, high = (smaller[-1] if smaller else 0), candidate.gpus
        better: list[Finding] = []
        unit = 1 if high <= per_node else per_node
        while high - low > unit:
            middle = (low + high) // 2 // unit * unit
            if middle <= low:
                break
            guesses = list(
                filter(self._may_keep, self.estimator.all(self.space(offer.gpu, middle)))
            )
            self.estimates += guesses
            guesses.sort(key=lambda each: each.step_s)
            tried = [guess.candidate for guess in guesses[:PER_LAYOUT]]
            kept = self._rank(self.simulate(tried, FIRST, f"{middle} GPUs"))
            low, high = (low, middle) if kept else (middle, high)
            better = kept or better
        return better

    def estimate(self) -> None:
        """Estimate every candidate, into `estimates`.

        Raises:
            Infeasible: no layout fits in memory.
        """
        question = self.question
        places = [(offer, gpus) for offer in question.gpus for gpus in question.counts(offer)]
        for done, (offer, gpus) in enumerate(places):
            self._progress("estimates", done, len(places))
            self.estimates += self.estimator.all(self.space(offer.gpu, gpus))
        self._progress("estimates", len(places), len(places))
        if not self.estimates:
            raise explain_memory(question)
        self.estimates = self._ranked_estimates()

    def space(self, gpu: str, gpus: int) -> Space:
        """The space of so many GPUs."""
        key = (gpu, gpus)
        if key not in self._spaces:
            self._spaces[key] = Space(self.question, gpu, gpus)
        return self._spaces[key]

    def simulate(self, candidates: Iterable[Candidate], how: Round, stage: str) -> list[Finding]:
        """Simulate some candidates.

        Those that do not fit with the question's changes are left out.

        Raises:
            Infeasible: none of them fits.
        """
        configs: dict[Candidate, RunConfig] = {}
        refused = None
        for candidate in candidates:
            config = config_of(self.question, candidate)
            try:
                server_memory_of(config)
            except DoesNotFit as error:
                refused = error
                continue
            configs[candidate] = config
        if refused is not None and not configs:
            raise Infeasible(str(refused), [])
        runs = {each: self.run_of(each, config, how) for each, config in configs.items()}
        names = {candidate: str(number) for number, candidate in enumerate(configs)}
        results = self.sweep({names[each]: run.config for each, run in runs.items()}, stage)
        found = []
        for candidate, config in configs.items():
            summary, run = results[names[candidate]], runs[candidate]
            step_s = self.steady_s(run.config, summary)
            finding = Finding(
                candidate=candidate,
                config=config,
                slice=run.config.sim.slice,
                summary=summary,
                step_s=step_s,
                saved_s=run.saved_s,
                worth=worth_of(config, summary, step_s),
            )
            self.findings[candidate] = finding
            found.append(finding)
        return found

    def steady_s(self, run: RunConfig, summary: dict[str, Any]) -> float:
        """A training step of a long run, from a simulation of a part of it."""
        waits = run.scheduler.class_path in TURNS or run.bounds.eta == 0
        if waits or run.workload.steps >= self.question.steps:
            return step_of(summary)
        return steady_step_s(run, summary, self.estimator.mean_tokens(run.workload))

    def run_of(
        self,
        candidate: Candidate,
        config: RunConfig,
        how: Round,
        part: int | None = None,
        changes: tuple[str, ...] = (),
    ) -> Run:
        """A short run of a slice of a candidate.

        Checkpoints are spread evenly over the steps: which step one falls on would be the greatest
        difference between two short runs.

        Args:
            candidate: which.
            config: its whole configuration, with `changes`.
            how: on what slice and how long.
            part: the slice, if not the one that `how` says.
            changes: of the configuration, beyond the question's.
        """
        part = part_of(config, how.trajectories) if part is None else part
        known = self.findings.get(candidate)
        if known is not None:
            bare_s = known.step_s - known.saved_s
        else:
            space = self.space(candidate.gpu, candidate.gpus)
            guess = self.estimator.of(space, candidate)
            bare_s = guess.step_s - guess.saved_s
        whole_s = self.estimator.saved_s(bare_s)
        pause = config_of(self.question, candidate).sim.evaluation
        saved_s = whole_s * config.sim.evaluation.save_s / pause.save_s if pause.save_s else 0.0
        short = (
            f"sim.slice={part}",
            f"workload.steps={how.steps_of(config)}",
            f"sim.evaluation.save_s={saved_s!r}",
            "sim.evaluation.every_s=0",
        )
        return Run(config_of(self.question, candidate, (*changes, *short)), saved_s)

    def sweep(self, configs: dict[str, RunConfig], stage: str) -> dict[str, dict[str, Any]]:
        """Simulate configurations, with progress."""
        return sweep(
            configs,
            cache=self._cache,
            pool=self._pool,
            done=lambda done, of: self._progress(stage, done, of),
        )

    def baseline(self, best: Candidate) -> Candidate | None:
        """The best estimated synchronous layout on the same GPUs; None if none fits."""
        space = self.space(best.gpu, best.gpus)
        found = sorted(self.estimator.synchronous(space), key=lambda each: each.step_s)
        return found[0].candidate if found else None

    def ranked(self) -> list[Finding]:
        """Everything that was simulated and keeps the limits, the best first."""
        return self._rank(list(self.findings.values()))

    # ---- the rounds ------------------------------------------------------------------------------

    def _ranked_estimates(self) -> list[Estimate]:
        def key(estimate: Estimate) -> tuple[float, ...]:
            candidate = estimate.candidate
            value = self.estimator.worth(estimate).value(self.question.objective)
            return (value, estimate.step_s, -candidate.eta, candidate.max_rollouts_in_flight)

        return sorted(self.estimates, key=key)

    def _promising(self, tried: set[Candidate]) -> list[Candidate]:
        """The next best estimates that may keep the limits, few of each size and layout."""
        found: list[Candidate] = []
        caps_of: dict[tuple[object, ...], set[int]] = {}
        of_size: dict[tuple[str, int], int] = {}
        sizes = {(each.candidate.gpu, each.candidate.gpus) for each in self.estimates}
        per_size = PER_SIZE if len(sizes) > 1 else FIRST_CANDIDATES
        for estimate in filter(self._may_keep, self.estimates):
            candidate = estimate.candidate
            size = (candidate.gpu, candidate.gpus)
            caps = caps_of.setdefault((*size, candidate.scheduler, *candidate.layout), set())
            if candidate in tried:
                caps.add(candidate.max_rollouts_in_flight)
                continue
            few = len(caps) < PER_LAYOUT and of_size.get(size, 0) < per_size
            if few and candidate.max_rollouts_in_flight not in caps:
                caps.add(candidate.max_rollouts_in_flight)
                of_size[size] = of_size.get(size, 0) + 1
                found.append(candidate)
            if len(found) == FIRST_CANDIDATES:
                break
        return found

    def _may_keep(self, estimate: Estimate) -> bool:
        question, worth = self.question, self.estimator.worth(estimate)
        limits = (
            (question.deadline_h, worth.hours),
            (question.budget_usd, worth.cost_usd),
            (question.step_s, estimate.step_s),
        )
        return all(most is None or value <= most * (1 + SLACK) for most, value in limits)

    def _fresher(self, candidate: Candidate) -> list[Candidate]:
        """The same with the next two smaller etas: less lag, if it costs nothing."""
        if candidate.scheduler in ("synchronous", "one_step_off"):
            return []
        batch = self.question.train_batch_rollouts
        etas = [eta for eta in self.question.etas() if 0 < eta < candidate.eta]
        return [
            dataclasses.replace(
                candidate,
                eta=eta,
                max_rollouts_in_flight=min(candidate.max_rollouts_in_flight, (eta + 1) * batch),
            )
            for eta in etas[-2:]
        ]

    def _rank(self, findings: Sequence[Finding], slack: float = 0.0) -> list[Finding]:
        """Those within the limits, the best first; of equal ones the smaller, then the fresher."""
        question = self.question
        kept = [finding for finding in findings if finding.within(question, slack)]
        kept.sort(key=lambda finding: (finding.value(question), finding.worth.hours))
        if not kept:
            return []
        best = kept[0]

        def order(finding: Finding) -> tuple[float, ...]:
            near = math.isclose(finding.value(question), best.value(question), rel_tol=TIE)
            near = near and math.isclose(finding.worth.hours, best.worth.hours, rel_tol=TIE)
            own = finding.candidate
            freshness = (own.gpus, own.eta, own.max_rollouts_in_flight) if near else (0, 0, 0)
            return (not near, *freshness, finding.value(question), finding.worth.hours)

        return sorted(kept, key=order)
