"""The paper's runs: published numbers, one calibration, a configuration for each cell."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from areal_sim.commands.calibrate_published import toml_of_fit
from areal_sim.config import config_sha256, load_config
from areal_sim.published import calibration
from areal_sim.published.fit import FITTED_MODELS, Fit, Residual, hours_of
from areal_sim.published.rows import FIGURE_4, FIGURE_6A, SYSTEMS, TABLE_1, TABLE_2
from areal_sim.published.systems import config_of, file_name, row_of, toml_of
from areal_sim.published.trainer import METHODS, train

SHARED = Path(__file__).parents[3] / "shared" / "published"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="published numbers lie beside the repository"
)


def lines_of(name: str) -> list[dict[str, str]]:
    import csv

    with (SHARED / name).open() as file:
        return list(csv.DictReader(file))


@needs_shared
def test_table_1_is_as_published() -> None:
    names = {"verl": "verl", "sync.AReaL": "sync", "AReaL": "areal"}
    lines = lines_of("areal_table1.csv")
    assert len(lines) == len(TABLE_1) * len(SYSTEMS)
    for line in lines:
        row = row_of(line["model"].rpartition("-")[2].lower())
        assert row.hours[names[line["system"]]] == float(line["hours"])  # type: ignore[index]
        assert (row.nodes, row.steps) == (int(line["nodes"]), int(line["ppo_steps"]))
        assert row.task == line["task"]


@needs_shared
def test_figures_are_as_published() -> None:
    for line in lines_of("areal_fig4_scaling.csv"):
        key = (line["model"].lower(), int(line["context_tokens"]), line["system"].lower())
        value = FIGURE_4[key][int(line["gpus"])]  # type: ignore[index]
        told = line["ktokens_per_s_as_plotted"]
        assert value == (None if told == "OOM" else float(told))
    bars = {
        (line["nodes"], line["variant"]): float(line["value"])
        for line in lines_of("areal_fig6_ablations.csv")
        if line["figure"] == "6a"
    }
    assert bars == {
        (str(case.nodes), kind): value
        for case in FIGURE_6A
        for kind, value in (("dynamic", case.dynamic), ("static", case.static))
    }
    for line in lines_of("areal_table2_staleness_scores.csv"):
        eta = None if line["eta"] == "inf" else int(line["eta"])
        scores = tuple(float(line[name]) for name in ("AIME24", "AIME25", "AMC23", "MATH500"))
        assert TABLE_2[eta, line["objective"]] == scores


def test_configurations_are_those_of_the_calibration() -> None:
    """They are written by the calibration, and nobody changed one by hand."""
    values = tomllib.loads(calibration.FILE.read_text())["values"]
    assert tuple(values) == calibration.NAMES
    for row in TABLE_1:
        for system in SYSTEMS:
            file = calibration.FOLDER / file_name(row.model, system)
            assert file.read_text() == toml_of(row.model, system, values), file.name
            same = config_of(row.model, system, values=values)
            assert config_sha256(load_config(file)) == config_sha256(same)


def test_one_model_for_all() -> None:
    """At most eight numbers, and none is another for another model of the same system and task."""
    assert len(calibration.PARAMETERS) <= 8
    for system in SYSTEMS:
        costs = {row.model: config_of(row.model, system).sim.cost for row in TABLE_1}
        assert len(set(map(repr, costs.values()))) == 1, system
    for task in ("math", "code"):
        runs = [config_of(r.model, s) for r in TABLE_1 if r.task == task for s in SYSTEMS]
        lengths = {(run.workload.preset, run.workload.length_scale) for run in runs}
        assert len(lengths) == 1, task


def test_the_calibration_says_what_it_was_fitted_to() -> None:
    kept = tomllib.loads(calibration.FILE.read_text())
    names = [row["name"] for row in kept["residuals"]]
    assert len(names) == len(FITTED_MODELS) * len(SYSTEMS) + 2 * len(FIGURE_6A)
    assert not any("table 1, 7b" in name or "table 1, 32b" in name for name in names)
    assert set(kept["errors"]) == set(kept["values"]) == set(calibration.NAMES)
    for row in kept["residuals"]:
        assert row["error"] == pytest.approx(row["simulated"] / row["published"] - 1, abs=2e-3)


def test_the_calibration_is_as_the_command_wrote_it() -> None:
    text = calibration.FILE.read_text()
    kept = tomllib.loads(text)
    rows = tuple(
        Residual(row["name"], row["unit"], row["published"], row["simulated"], within=1.0)
        for row in kept["residuals"]
    )
    found = Fit(kept["values"], kept["errors"], rows)
    again = tomllib.loads(toml_of_fit(found))
    for row, was in zip(again["residuals"], kept["residuals"], strict=True):
        assert row.pop("error") == pytest.approx(was.pop("error"), abs=2e-3)  # of rounded values
    assert again == kept


def test_hours_of_a_whole_run_from_a_part() -> None:
    summary = {"simulated_hours": 2.0, "steps": 4, "step_time_s": {"mean": 1800.0}}
    assert hours_of(summary, 10) == 2.0 + 6 * 0.5


def test_micro_batches_of_the_trainer() -> None:
    """Dynamic ones are never slower than static ones, and waste little more than filling."""
    for case in FIGURE_6A:
        found = {method: train(case, method) for method in METHODS}
        assert found["static"].micro_batches == 32
        assert found["algorithm_1"].tflops > found["static"].tflops
        assert found["first_fit_decreasing"].tflops > found["static"].tflops
        assert found["algorithm_1"].tflops < 989
