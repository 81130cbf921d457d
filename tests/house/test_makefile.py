"""The make targets exist, and a machine that lacks something is told so in plain words."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.repo import ROOT, clean_environment

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="GNU make is not installed")

TARGETS = [
    "help",
    "demo",
    "sim",
    "train",
    "test",
    "check",
    "lint",
    "bench",
    "faults",
    "validate",
    "figures",
    "docs",
    "format",
    "clean",
]


def make(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        env=clean_environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def stand_in_python(path: Path, before: str) -> Path:
    """Writes a python that runs a line of its own before the program given with -c."""
    path.write_text(
        "#!/bin/sh\n"
        '[ "$1" = -c ] || { echo "only the checks may run: $*" >&2; exit 99; }\n'
        f"exec '{sys.executable}' -c \"{before}\n$2\"\n"
    )
    path.chmod(0o755)
    return path


def commands_of(*arguments: str) -> list[str]:
    """Returns the commands that make would run if nothing were installed yet."""
    result = make("-n", "-B", *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_make_alone_lists_every_target() -> None:
    result = make()
    assert result.returncode == 0, result.stderr
    listed = [line.split()[0] for line in result.stdout.splitlines()[1:]]
    assert listed == TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_each_target_can_be_made(target: str) -> None:
    assert commands_of(target)


def test_the_demo_simulates_and_then_trains() -> None:
    commands = commands_of("demo")
    simulated, trained = commands[-2:]
    assert simulated == ".venv/bin/areal-sim demo --out runs/demo"
    assert trained.startswith(".venv/bin/areal-real train configs/real/tiny-cpu.toml")
    assert [line for line in commands if "-m pip install" in line and '-e ".[real]"' in line]
    assert not [line for line in commands if "[dev]" in line]


def test_simulating_needs_only_the_core_install() -> None:
    commands = commands_of("sim")
    assert commands[-1] == ".venv/bin/areal-sim demo --out runs/demo"
    assert [line for line in commands if "-m pip install" in line and '-e "."' in line]
    assert not [line for line in commands if "[dev]" in line]


def test_all_goals_wait_for_the_one_install_when_one_needs_dev() -> None:
    commands = commands_of("-j4", "demo", "sim", "test", "check", "docs", "bench")
    installs = [line for line in commands if "-m pip install" in line]
    assert len([line for line in installs if " -e " in line]) == 1
    assert len([line for line in commands if "areal-sim demo" in line]) == 1


def test_pytest_arguments_are_passed_on() -> None:
    assert commands_of("test")[-1] == ".venv/bin/python -m pytest -n 3"
    assert commands_of("test", "PYTEST_ARGS=-x")[-1] == ".venv/bin/python -m pytest -x"


def test_an_old_python_is_named(tmp_path: Path) -> None:
    old = stand_in_python(tmp_path / "old", "import sys; sys.version_info = (3, 10, 12)")
    result = make(f"VENV={tmp_path}/v", f"PYTHON={old}", f"{tmp_path}/v/.made")
    assert result.returncode == 2
    assert f"areal-lab needs Python 3.11 or newer, and {old} is older." in result.stderr
    assert not (tmp_path / "v").exists()


def test_a_missing_python_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    result = make(f"VENV={tmp_path}/v", f"PYTHON={gone}", f"{tmp_path}/v/.made")
    assert result.returncode == 2
    assert f"there is no {gone}" in result.stderr


def test_a_missing_venv_module_is_named(tmp_path: Path) -> None:
    bare = stand_in_python(tmp_path / "bare", "import sys; sys.modules['ensurepip'] = None")
    result = make(f"VENV={tmp_path}/v", f"PYTHON={bare}", f"{tmp_path}/v/.made")
    assert result.returncode == 2
    assert f"{bare} has no venv module" in result.stderr
    assert "python3-venv" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_good_python_makes_the_venv_in_a_folder_with_a_space(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    for _ in range(2):
        result = make("-C", str(folder), f"PYTHON={sys.executable}", ".venv/.made")
        assert result.returncode == 0, result.stderr
    assert (folder / ".venv/bin/python").exists()
    assert "up to date" in result.stdout
