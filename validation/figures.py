"""What of a run is measured and predicted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.accounts import accounts
from analysis.phases import distributions, phases
from analysis.recorder import RunRecorder
from analysis.steps import steady_state, steps_of

START_UP = 4
"""First steps that are left out of every run, measured or predicted, alike."""

PHASES = {
    "generation, a token": "response_s_per_token",
    "interruption": "interruption_s.mean",
    "load weights": "load_weights_s.mean",
    "proximal": "trainer_s.proximal",
    "minibatches": "trainer_s.minibatch",
    "optimizer": "trainer_s.optimizer",
    "publish": "trainer_s.publish",
    "trainer overhead": "trainer_s.overhead",
}
"""Phases, by the keys of `analysis.phases`; seconds."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run, without its start-up.

    Attributes:
        step_s: mean step time.
        throughput: tokens trained a second.
        phases: seconds by the names of `PHASES`; those that the run has.
        generation_idle, training_idle: shares.
        lag: mean, in versions.
        discarded: share of the rollouts that were settled.
    """

    step_s: float
    throughput: float
    phases: dict[str, float]
    generation_idle: float
    training_idle: float
    lag: float
    discarded: float


def figures(recorder: RunRecorder) -> Figures:
    """Take the figures of a run."""
    steps = steps_of(recorder)
    steady = steady_state(steps, START_UP)
    told = distributions(recorder, START_UP)
    found = phases(recorder, START_UP)
    seconds = float(told.step_s.sum())
    tokens = steps.prompt_tokens[START_UP:].sum() + steps.generated_tokens[START_UP:].sum()
    part = accounts(recorder, steady.start_ns, steady.end_ns)
    idle = {side: part.idle_share(side) for side in ("generation", "training")}
    return Figures(
        step_s=float(np.mean(told.step_s)),
        throughput=float(tokens) / seconds,
        phases={
            name: value
            for name, key in PHASES.items()
            if (value := found.get(key)) is not None and value > 0
        },
        generation_idle=idle["generation"] or 0.0,
        training_idle=idle["training"] or 0.0,
        lag=float(np.mean(told.lag)),
        discarded=found["discarded_share"] or 0.0,
    )


def middle_of(runs: Sequence[Figures]) -> Figures:
    """The median of each figure over runs: now and then a run is much slower than the others."""

    def middle(of: Callable[[Figures], float]) -> float:
        return float(np.median([of(run) for run in runs]))

    names = [name for name in PHASES if all(name in run.phases for run in runs)]
    seconds = {name: float(np.median([run.phases[name] for run in runs])) for name in names}
    return Figures(
        step_s=middle(lambda x: x.step_s),
        throughput=middle(lambda x: x.throughput),
        phases=seconds,
        generation_idle=middle(lambda x: x.generation_idle),
        training_idle=middle(lambda x: x.training_idle),
        lag=middle(lambda x: x.lag),
        discarded=middle(lambda x: x.discarded),
    )


def spread(values: list[float]) -> float:
    """Half of the range, relative to the mean: the noise of repeated runs."""
    mean = float(np.mean(values))
    return (max(values) - min(values)) / 2 / mean if mean else 0.0
