"""The pages under docs/: what they run and what they quote is true."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from areal_sim.cli import main
from tests.house.console import run, steps
from tests.house.repo import ROOT, clean_environment
from tests.house.test_readme import VENV, sandbox

EXAMPLE = ROOT / "examples" / "generate_ahead.py"
CLASS = "examples.generate_ahead:GenerateAhead"
TUTORIAL = ROOT / "docs" / "tutorial" / "02-write-a-scheduler.md"
FEWER_THAN = 60
"""Lines of a new scheduler, by the project's promise."""

PUBLIC = {"areal_sched", "areal_sched.routing"}
"""What the example may import of this project: `parts` is a name of the first."""

PAGES = [
    path.relative_to(ROOT)
    for folder in ("tutorial", "guides", "background")
    for path in sorted((ROOT / "docs" / folder).glob("*.md"))
    if steps(path.read_text(encoding="utf-8"))
]
"""Pages with executed commands."""


def test_the_tutorials_are_among_the_executed_pages() -> None:
    assert {page.name for page in PAGES} >= {"01-first-run.md", TUTORIAL.name}


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_executed_commands_do_what_the_page_shows(page: Path, tmp_path: Path) -> None:
    path = f"{VENV / 'bin'}{os.pathsep}{os.environ['PATH']}"
    if shutil.which("areal-sim", path=path) is None:
        pytest.skip("areal-sim is not installed: run the tests with `make test`")
    folder = sandbox(tmp_path)
    environment = clean_environment(PATH=path, COLUMNS="100", NO_COLOR="1", TERM="dumb")
    for step in steps((ROOT / page).read_text(encoding="utf-8")):
        run(step, folder=folder, environment=environment)


def test_the_tutorial_quotes_the_example_word_for_word() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)
    quoted = [block for block in blocks if "class GenerateAhead" in block]
    assert quoted == [EXAMPLE.read_text(encoding="utf-8")]


def test_the_example_is_short_and_uses_the_public_interface_alone() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert len(text.splitlines()) < FEWER_THAN
    imported = {
        node.module
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("areal")
    }
    assert imported == PUBLIC


def simulate(capsys: pytest.CaptureFixture[str], *overrides: str) -> dict[str, object]:
    """The summary of three steps on eight GPUs, without the wall clock and the run's names."""
    arguments = ["run", str(ROOT / "configs" / "home-8gpu.toml"), "--json"]
    for override in ("workload.steps=3", "workload.prompts_per_step=16", *overrides):
        arguments += ["--set", override]
    assert main(arguments) == 0
    summary = json.loads(capsys.readouterr().out)
    left_out = ("scheduler", "sha256", "wall_s", "realtime_factor")
    return {k: v for k, v in summary.items() if not k.endswith(left_out)}


def test_the_example_runs_by_its_import_path_and_alpha_means_what_the_tutorial_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    areal = {eta: simulate(capsys, f"limits.eta={eta}") for eta in (0, 1, 2)}
    ahead = {
        alpha: simulate(
            capsys, f"scheduler.class={CLASS}", f"scheduler.alpha={alpha}", "limits.eta=2"
        )
        for alpha in (0, 0.5, 1, 2)
    }
    assert [ahead[alpha] for alpha in (0, 1, 2)] == [areal[eta] for eta in (0, 1, 2)]
    hours = {alpha: summary["simulated_hours"] for alpha, summary in ahead.items()}
    assert hours[0] > hours[0.5] > hours[1]  # type: ignore[operator]


def test_an_alpha_beyond_eta_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    config = str(ROOT / "configs" / "home-8gpu.toml")
    options = (f"scheduler.class={CLASS}", "scheduler.alpha=1.5", "limits.eta=1")
    arguments = [word for option in options for word in ("--set", option)]
    assert main(["run", config, *arguments]) == 2
    assert "scheduler.alpha = 1.5: above limits.eta = 1" in capsys.readouterr().err
