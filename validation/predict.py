"""From journals to predictions: fit to some, simulate the others, compare."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.calibration.calibrate import Calibration, calibrate, room_of
from analysis.calibration.engine import Part
from analysis.calibration.rewards import workload
from analysis.recorder import read_run
from areal_sched.journal import JournalReader
from areal_sim.commands.resimulation import config_of, costs_of
from areal_sim.config import load_config
from areal_sim.rundir import simulate
from traces.schema import write_workload
from validation.cases import FITTED, Case
from validation.figures import START_UP, Figures, figures, middle_of

if TYPE_CHECKING:
    import pandas as pd

SEEDS = (1, 2, 3)
"""Of the simulations of each case; the prediction is their median."""

OWN_LENGTHS = "lengths"
"""The change of cases whose answers have other lengths: these are an input, taken from the
runs of the case itself. All others are predicted with the lengths of what was fitted to."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case: ``measured``, run by run, and ``predicted``, the median over seeds."""

    case: Case
    measured: tuple[Figures, ...]
    predicted: Figures

    @property
    def middle(self) -> Figures:
        """The median of what was measured."""
        return middle_of(self.measured)


def fitted(cases: Sequence[Case]) -> Calibration:
    """Fit to the cases that are there for it: of each to the run with the median step time."""
    own = [case for case in cases if case.change == FITTED]
    calibration = calibrate([middle_run(case) for case in own], first_step=START_UP + 1)
    # Answers of another seed have other lengths: those of all seeds go into every prediction.
    return replace(calibration, lengths=lengths_of([x for case in own for x in case.journals]))


def lengths_of(journals: Sequence[Path]) -> pd.DataFrame:
    """Lengths of all groups of some runs."""
    recorders = [read_run(path) for path in journals]
    return workload([Part(recorder, 0, recorder.end_ns) for recorder in recorders])


def middle_run(case: Case) -> Path:
    """The run of a case whose step time is the median."""
    if not case.journals:
        raise FileNotFoundError(f"{case.journal(1)}: no such journal; python -m validation.record")
    runs = sorted(case.journals, key=lambda path: figures(read_run(path)).step_s)
    return runs[(len(runs) - 1) // 2]


def predict(
    case: Case, calibration: Calibration, seeds: Sequence[int] = SEEDS
) -> tuple[Figures, ...]:
    """Simulate a case as often as there are seeds."""
    journal = case.journals[0]
    header = JournalReader(journal).header
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        costs_of(calibration).save(folder / "costs.toml")
        lengths = calibration.lengths
        if case.change == OWN_LENGTHS:
            lengths = lengths_of(case.journals)
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
        found.append(Outcome(case, measured, middle_of(predict(case, calibration))))
    return found
