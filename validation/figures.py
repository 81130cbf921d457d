"""What of a run is measured and predicted."""

from __future__ import annotations

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


def mean_of(runs: list[Figures]) -> Figures:
    """The mean of each figure over runs."""
    names = [name for name in PHASES if all(name in run.phases for run in runs)]
    return Figures(
        step_s=float(np.mean([x.step_s for x in runs])),
        throughput=float(np.mean([x.throughput for x in runs])),
        phases={name: float(np.mean([x.phases[name] for x in runs])) for name in names},
        generation_idle=float(np.mean([x.generation_idle for x in runs])),
        training_idle=float(np.mean([x.training_idle for x in runs])),
        lag=float(np.mean([x.lag for x in runs])),
        discarded=float(np.mean([x.discarded for x in runs])),
    )


def spread(values: list[float]) -> float:
    """Half of the range, relative to the mean: the noise of repeated runs."""
    mean = float(np.mean(values))
    return (max(values) - min(values)) / 2 / mean if mean else 0.0
