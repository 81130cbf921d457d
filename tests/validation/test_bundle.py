"""The recorded real runs: they replay exactly, and what is predicted of one is what is kept."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from analysis.calibration.calibrate import calibrate
from analysis.errors import AnalysisError
from areal_sched import JournalReader, Limits, load, replay
from areal_sched.errors import ReplayDiverged
from validation.cases import FITTED, HERE, Case, read_cases
from validation.predict import fitted, outcomes
from validation.record import ENGINE_STEPS, compact
from validation.report import report, to_json

CASES = read_cases()
ONE = "synchronous"
SAME = 0.01
"""Linear algebra differs in its last digits from machine to machine, and so may a simulation."""


def of(change: str) -> list[Case]:
    return [case for case in CASES if (case.change == FITTED) == (change == FITTED)]


def test_all_kinds_of_change_are_there_and_enough_of_each() -> None:
    changes = {case.change for case in CASES}
    assert changes == {
        FITTED, "eta", "servers", "batch", "scheduler", "interruption", "lengths"
    }  # fmt: skip
    assert len(of("other")) >= 12
    for case in CASES:
        assert len(case.journals) >= 3, case.name


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_journal_replays_to_the_same_decisions(case: Case) -> None:
    for path in case.journals:
        reader = JournalReader(path)
        limits = Limits(**reader.header["limits"])
        scheduler = load(reader.header["scheduler"], limits, reader.header["options"])
        assert replay(reader.entries(), scheduler, limits) > 1000
        assert not reader.truncated


def test_another_eta_is_found_out() -> None:
    reader = JournalReader(CASES[0].journal(1))
    changed = {**reader.header["limits"], "eta": 0}
    limits = Limits(**changed)
    scheduler = load(reader.header["scheduler"], limits, reader.header["options"])
    with pytest.raises(ReplayDiverged, match="StartRollouts"):
        replay(reader.entries(), scheduler, limits)


@pytest.mark.slow
def test_what_is_predicted_of_one_case_is_what_is_kept() -> None:
    case = next(case for case in CASES if case.name == ONE)
    found = outcomes([case], fitted(CASES), lambda name: None)
    kept = json.loads((HERE / "results.json").read_text(encoding="utf-8"))
    (before,) = [x for x in kept["cases"] if x["name"] == ONE]
    (now,) = to_json(found)["cases"]
    assert now["measured"] == before["measured"]
    for name in ("step_s", "throughput", "generation_idle", "training_idle"):
        assert now["predicted"][name] == pytest.approx(before["predicted"][name], rel=SAME), name
    assert ONE in report(found)


def test_the_kept_text_says_what_the_kept_numbers_say() -> None:
    text = (HERE / "results.txt").read_text(encoding="utf-8")
    kept = json.loads((HERE / "results.json").read_text(encoding="utf-8"))
    for line in kept["verdicts"]:
        assert line in text
    assert [case["name"] for case in kept["cases"]] == [case.name for case in CASES]


def test_steps_of_engines_are_kept_where_something_is_fitted_to_them() -> None:
    path = CASES[0].journal(1)
    assert CASES[0].change == FITTED
    whole, without = compact(path, steps=True), compact(path, steps=False)
    assert len(without) < len(whole)
    assert ENGINE_STEPS in gzip.decompress(whole).decode()
    assert ENGINE_STEPS not in gzip.decompress(without).decode()


def test_a_part_too_short_to_fit_to_says_what_it_leaves_open(tmp_path: Path) -> None:
    base = next(case for case in CASES if case.name == "base")
    lines = gzip.decompress(base.journal(1).read_bytes()).splitlines(keepends=True)
    short = tmp_path / "short.jsonl.gz"
    short.write_bytes(gzip.compress(b"".join(lines[:2949]) + lines[2949][:40]))
    with pytest.raises(
        AnalysisError, match="decode_base_s and decode_per_rollout_s cannot be told"
    ):
        calibrate([short])
