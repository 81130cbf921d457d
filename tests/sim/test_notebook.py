"""Simulating from Python: what may be given, what comes back, and the example notebook."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import areal_sim
from analysis.drawing import png_of
from analysis.rundir import TIMELINE
from analysis.tables import STEP_COLUMNS, TRAJECTORY_COLUMNS
from areal_sim import rundir
from areal_sim.config import load_config, resolved_toml
from areal_sim.rundir import Progress

ROOT = Path(__file__).parents[2]
HOME = ROOT / "configs" / "home-8gpu.toml"
EXAMPLE = ROOT / "examples" / "what_if.ipynb"
SHORT = ["workload.steps=3", "workload.prompts_per_step=16"]
TABLES = {
    "cluster": {"gpu": "H100", "nodes": np.int64(1), "generation_share": np.float64(0.75)},
    "model": {"name": "r1-distill-qwen-1.5b"},
    "workload": {
        "preset": "math-1.5b-deepscaler",
        "prompts_per_step": 16,
        "group_size": 16,
        "max_prompt_tokens": 1024,
        "max_response_tokens": 7168,
        "steps": 3,
    },
    "limits": {"eta": 4, "max_rollouts_in_flight": 1024},
    "scheduler": {"class": "areal"},
    "sim": {"trainer": {"micro_batch_tokens": 16384}},
}


def test_a_run_has_what_a_run_directory_has(tmp_path: Path) -> None:
    run = areal_sim.simulate(HOME, SHORT)
    config = load_config(HOME, SHORT)
    alone = rundir.simulate(config, name="home-8gpu", out_dir=tmp_path / "run")
    assert run.config == config
    assert run.summary["journal_sha256"] == alone.summary["journal_sha256"]
    assert not run.interrupted
    assert list(run.steps) == list(STEP_COLUMNS)
    assert run.frame is run.steps
    assert len(run.frame) == 3
    written = pd.read_parquet(tmp_path / "run" / "trajectories.parquet")
    assert list(run.trajectories) == list(TRAJECTORY_COLUMNS)
    assert len(run.trajectories) == len(written)
    figure = run.timeline()
    assert isinstance(figure, Figure)
    assert png_of(figure) == (tmp_path / "run" / TIMELINE).read_bytes()


@pytest.mark.parametrize("kind", ["path", "text", "mapping", "RunConfig", "changed"])
def test_what_a_configuration_may_be(kind: str) -> None:
    config = load_config(HOME, SHORT)
    given = {
        "path": str(HOME),
        "text": HOME.read_text(),
        "mapping": TABLES,
        "RunConfig": config,
        "changed": load_config(HOME, ["limits.eta=1"]),
    }[kind]
    changes = {"workload.steps": 3, "workload.prompts_per_step": np.int32(16), "limits.eta": 4}
    run = areal_sim.simulate(given, changes)  # type: ignore[arg-type]
    assert resolved_toml(run.config) == resolved_toml(config)
    assert run.summary["name"] == ("home-8gpu" if kind == "path" else "run")


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (HOME, ["limits.etta=1"], "limits.etta: no such key (did you mean 'eta'?)"),
        (HOME, {"limits.eta": "many"}, 'limits.eta = "many"'),
        (HOME, "limits.eta=1", "changes = 'limits.eta=1': expected a list or a mapping"),
        ("no-such-file.toml", [], "no-such-file.toml: cannot be read"),
        ("[cluster]\ngpu = 1\n", [], "config:"),
        ({**TABLES, "limits": {"etta": 1}}, [], "limits.etta"),
        (HOME, {"model.name": "32b"}, "too much"),
    ],
)
def test_what_is_wrong_is_named(config: object, changes: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        areal_sim.simulate(config, changes)  # type: ignore[arg-type]


def test_no_such_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'simulated'"):
        _ = areal_sim.simulated  # type: ignore[attr-defined]
    assert {"Run", "simulate"} <= set(dir(areal_sim))


def test_progress_and_the_stop_button(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rundir, "_EVENTS_BETWEEN_LOOKS", 100)
    seen: list[Progress] = []

    def stop(progress: Progress) -> None:
        seen.append(progress)
        if [each.steps for each in seen].count(1) == 1 == progress.steps:
            signal.raise_signal(signal.SIGINT)

    run = areal_sim.simulate(HOME, SHORT, progress=stop)
    assert run.interrupted
    assert len(run.steps) < 3
    assert "interrupted" in repr(run)
    assert "interrupted" in run._repr_html_()
    assert seen[-1].wanted == 3
    areal_sim.simulate(HOME, SHORT, progress=True)
    assert "home-8gpu" in capsys.readouterr().err


def test_what_a_notebook_shows() -> None:
    run = areal_sim.simulate(HOME, SHORT, name="<b>&")
    assert repr(run).startswith("<Run <b>&: 3 steps, ")
    shown = run._repr_html_()
    assert "<b>" not in shown
    assert "&lt;b&gt;&amp;" in shown
    assert "effective throughput" in shown
    assert 'title="decode: ' in shown


@pytest.mark.slow
def test_the_example_runs_and_shows_its_pictures() -> None:
    nbclient = pytest.importorskip("nbclient", reason="run the tests with `make test`")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(EXAMPLE, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in cells] == [[]] * len(cells), "outputs are not committed"
    where = {"metadata": {"path": str(EXAMPLE.parent)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=where).execute()
    shown = {cell.id: cell.outputs[-1] for cell in cells}
    assert "Run eta 4: 12 steps" in shown["simulate"].data["text/plain"]
    assert "GPU time by cause" in shown["simulate"].data["text/html"]
    assert "times as fast" in shown["faster"].text
    for name in ("timeline-0", "timeline-4"):
        assert len(shown[name].data["image/png"]) > 10_000
