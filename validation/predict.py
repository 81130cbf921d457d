"""From journals to predictions: fit to some, simulate the others, compare."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.calibration.calibrate import Calibration, calibrate, room_of
from analysis.calibration.engine import Part
from analysis.calibration.rewards import workload
from analysis.recorder import read_run
from areal_sched.journal import JournalReader
from areal_sim.config import load_config
from areal_sim.resimulate import config_of, costs_of
from areal_sim.rundir import simulate
from traces.schema import write_workload
from validation.cases import FITTED, Case
from validation.figures import START_UP, Figures, figures, mean_of

SEEDS = (1, 2, 3)
"""Of the simulations of each case; the prediction is their mean."""

OWN_LENGTHS = "lengths"
"""The change of cases whose answers have other lengths: these are an input, taken from the first
run of the case itself. All others are predicted with the lengths of what was fitted to."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case: ``measured``, run by run, and ``predicted``, the mean over seeds."""

    case: Case
    measured: tuple[Figures, ...]
    predicted: Figures

    @property
    def mean(self) -> Figures:
        """Of what was measured."""
        return mean_of(list(self.measured))


def fitted(cases: Sequence[Case]) -> Calibration:
    """Fit to the runs of the cases that are there for it."""
    paths = [path for case in cases if case.change == FITTED for path in case.journals]
    return calibrate(paths, first_step=START_UP + 1)


def predict(
    case: Case, calibration: Calibration, seeds: Sequence[int] = SEEDS
) -> tuple[Figures, ...]:
    """Simulate a case as often as there are seeds."""
    journal = case.journal(1)
    header = JournalReader(journal).header
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        costs_of(calibration).save(folder / "costs.toml")
        lengths = calibration.lengths
        if case.change == OWN_LENGTHS:
            recorder = read_run(journal)
            lengths = workload([Part(recorder, 0, recorder.end_ns)])
        write_workload(lengths, folder / "lengths.parquet")
        text = config_of(
            header,
            room_of(journal),
            calibration,
            costs="costs.toml",
            lengths="lengths.parquet",
            steps=header["run"]["steps"],
        )
        (folder / "case.toml").write_text(text, encoding="utf-8")
        return tuple(
            figures(
                simulate(
                    load_config(folder / "case.toml", [f"sim.seed={seed}"]), name=case.name
                ).recorder
            )
            for seed in seeds
        )


def outcomes(
    cases: Sequence[Case], calibration: Calibration, tell: Callable[[str], None]
) -> list[Outcome]:
    """Every case that has journals, those fitted to among them."""
    found = []
    for case in cases:
        if not case.journals:
            continue
        tell(case.name)
        measured = tuple(figures(read_run(path)) for path in case.journals)
        found.append(Outcome(case, measured, mean_of(list(predict(case, calibration)))))
    return found
