"""How far a plan's hours may be off: the calibration's standard errors, and the model's own.

The eight numbers of the paper's cluster have standard errors (`areal_sim.published`). What each
does to a plan is found by estimating it again with the number one error up and down. The model
itself was held against table 1 of the paper: the root mean square of the six rows that nothing
was fitted to is `MODEL_ERROR`. Both are taken as independent and lognormal.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import tomllib

from areal_sim.plan.estimate import Estimator
from areal_sim.plan.question import TASKS, Question
from areal_sim.plan.space import Candidate, Space
from areal_sim.published.calibration import FILE as CALIBRATION

MODEL_ERROR = 0.153
"""Standard deviation of log(simulated / published) over the six predicted rows of table 1
(arXiv 2505.24298): 7B -6.6, +3.3, +10.5 %; 32B -5.0, -2.2, -29.5 %. Measured by
`paper_figs.table1`."""

CONFIDENCE_SIGMAS = 1.645
"""Of a normal distribution 90 % lie within so many standard deviations."""

OF_AREAL = {
    "server_layer_overhead_s": ("server_layer_overhead_s",),
    "tensor_parallel_wait_s": ("tensor_parallel_wait_s",),
    "training_efficiency": ("training_efficiency", "forward_efficiency"),
    "disk_bytes_per_s": ("disk_write_bytes_per_s", "disk_read_bytes_per_s"),
    "sync_switch_s": ("switch_overhead_s",),
}
"""Keys of ``[sim.cost]`` that a calibrated number sets."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How far a time may be off, as a factor either way with 90 % confidence.

    Attributes:
        factor: all together: the truth lies between value / factor and value * factor.
        by_number: standard deviation of log time that each calibrated number brings, largest first.
    """

    factor: float
    by_number: tuple[tuple[str, float], ...]

    def around(self, value: float) -> tuple[float, float]:
        """The interval around a value."""
        return value / self.factor, value * self.factor


@functools.cache
def standard_errors() -> dict[str, float]:
    """One standard error of each calibrated number, as a factor."""
    return dict(tomllib.loads(CALIBRATION.read_text(encoding="utf-8"))["errors"])


def spread_of(question: Question, candidate: Candidate) -> Spread | None:
    """The uncertainty of a candidate's time; None with costs that were never held against a run."""
    if question.costs != "paper":
        return None
    middle = _step_s(question, candidate)
    found = {}
    for name, error in standard_errors().items():
        low, high = (
            _step_s(_changed(question, name, factor), candidate) for factor in (1 / error, error)
        )
        # Half the distance between both, as one of them may lie on a kink.
        deviation = (abs(math.log(low / middle)) + abs(math.log(high / middle))) / 2
        if deviation > 0:
            found[name] = deviation
    total = math.sqrt(MODEL_ERROR**2 + sum(deviation**2 for deviation in found.values()))
    ranked = sorted(found.items(), key=lambda item: -item[1])
    return Spread(factor=math.exp(CONFIDENCE_SIGMAS * total), by_number=tuple(ranked))


def _changed(question: Question, name: str, factor: float) -> Question:
    """The question with one calibrated number multiplied; as it is where that plays no part."""
    from areal_sim.plan.base import cost_keys, length_scale

    if name in OF_AREAL:
        keys = cost_keys(question)
        # First, so that the user's own changes win.
        changes = tuple(f"sim.cost.{key}={keys[key] * factor!r}" for key in OF_AREAL[name])
        return dataclasses.replace(question, changes=(*changes, *question.changes))
    if question.task in TASKS and name == f"{question.task}_length_scale":
        return dataclasses.replace(question, length_scale=length_scale(question) * factor)
    return question


def _step_s(question: Question, candidate: Candidate) -> float:
    space = Space(question, candidate.gpu, candidate.gpus)
    return Estimator(question).of(space, candidate).step_s
