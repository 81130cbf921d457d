"""The README's commands are run and their output is what the README shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.console import run, steps
from tests.house.repo import ROOT, clean_environment, is_made

README = ROOT / "README.md"
VENV = Path(sys.prefix)


def sandbox(folder: Path) -> Path:
    """Fills a folder with links to the repository's files: what commands write stays there."""
    for path in ROOT.iterdir():
        if not is_made(path.name):
            (folder / path.name).symlink_to(path)
    (folder / ".venv").symlink_to(VENV)
    return folder


def make_would_install() -> bool:
    """Tells whether `make` would first install something: then .venv is not of its making."""
    stamps = [".venv/.installed-core", ".venv/.installed-dev"]
    if (
        not all((ROOT / stamp).exists() for stamp in stamps)
        or VENV.resolve() != (ROOT / ".venv").resolve()
    ):
        return True
    question = subprocess.run(["make", "-q", *stamps], cwd=ROOT, env=clean_environment())
    return question.returncode != 0


def test_the_executed_commands_do_what_the_readme_shows(tmp_path: Path) -> None:
    if not README.exists():
        pytest.skip("there is no README.md yet")
    wanted = steps(README.read_text(encoding="utf-8"))
    if any(step.command.startswith("make") for step in wanted) and make_would_install():
        pytest.skip(".venv is not up to date: run the tests with `make test`")
    folder = sandbox(tmp_path)
    path = f"{VENV / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = clean_environment(PATH=path, COLUMNS="100", NO_COLOR="1", TERM="dumb")
    for step in wanted:
        run(step, folder=folder, environment=environment)


def test_the_readme_has_executed_commands() -> None:
    if not README.exists():
        pytest.skip("there is no README.md yet")
    assert steps(README.read_text(encoding="utf-8"))
