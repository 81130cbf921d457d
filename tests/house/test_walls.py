"""The import walls: they hold in this repository, and they would notice a breach."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.house.imports import forbidden_imports, imports_of
from tests.house.repo import PACKAGES, ROOT, clean_environment, existing_packages

BREACHES = {
    "areal_sched/state.py": "import areal_sim.server\n",
    "areal_sched/pure.py": "import numpy\n",
    "traces/late.py": "from areal_sched import events\n",
    "areal_sim/server.py": "from analysis.tables import lag\n",
    "areal_sim/trainer.py": "def f():\n    import torch.nn\n",
    "analysis/tables.py": "from areal_sim import server\n",
    "areal_sim/engine.py": "import streamlit\n",
    "areal_sim/executor.py": "import areal_real.client\n",
    "areal_real/executor.py": "import areal_sim.server\n",
    "areal_real/config.py": "import areal_real.client\n",
}
"""Files of a made-up tree, each with one import that the design forbids."""

ONLY_A_CONTRACT_SEES = {"areal_real/config.py", "areal_sched/pure.py", "areal_sim/engine.py"}
"""Those that break no rule between packages: numpy and Streamlit are none, and config loads torch
indirectly."""

ALLOWED = {
    "areal_sched/ids.py": "from __future__ import annotations\n",
    "areal_sched/events.py": "from areal_sched.ids import RolloutId\n",
    "areal_sched/relative.py": "from . import ids\nfrom .events import x\n",
    "traces/schema.py": "import numpy\nfrom areal_sched import ids\n",
    "analysis/plots.py": "import areal_sched.events\nimport traces.schema\n",
    "areal_sim/cli.py": "def main():\n    from analysis import plots\n",
    "areal_sim/commands/report.py": "import analysis.plots\n",
    "areal_sim/notebook.py": "import analysis\n",
    "areal_sim/rundir.py": "import analysis\n",
    "areal_sim/ui/charts.py": "import altair\nimport analysis.causes\n",
    "areal_sim/network.py": "import simpy\nfrom areal_sched import events\n",
    "areal_real/client.py": "import torch\nfrom areal_sched import events\n",
    "areal_real/check.py": "import areal_real.config\n",
    "areal_real/config.py": "from areal_sched import events\n",
}
"""Files of the same tree whose imports are all allowed."""


def made_up_tree(root: Path, files: dict[str, str]) -> Path:
    for package in (*PACKAGES, "areal_sim/commands", "areal_sim/ui"):
        (root / package).mkdir()
        (root / package / "__init__.py").touch()
    for name, text in files.items():
        (root / name).write_text(text)
    return root


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Runs import-linter over a tree under this repository's contracts."""
    if root != ROOT:
        shutil.copy(ROOT / "pyproject.toml", root / "pyproject.toml")
    script = "import sys; from importlinter.cli import lint_imports_command as c; sys.exit(c())"
    return subprocess.run(
        [sys.executable, "-c", script, "--no-cache", "--no-logo"],
        cwd=root,
        env=clean_environment(PYTHONPATH=str(root), NO_COLOR="1", COLUMNS="200"),
        capture_output=True,
        text=True,
        check=False,
    )


def contracts() -> dict[str, str]:
    """Returns the names of the contracts in pyproject.toml by their ids."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return {contract["id"]: contract["name"] for contract in settings["contracts"]}


def test_this_repository_keeps_the_walls() -> None:
    assert forbidden_imports(ROOT) == []


def test_a_breach_is_noticed(tmp_path: Path) -> None:
    tree = made_up_tree(tmp_path, ALLOWED | BREACHES)
    noticed = {line.partition(":")[0] for line in forbidden_imports(tree)}
    assert noticed == BREACHES.keys() - ONLY_A_CONTRACT_SEES


def test_this_repository_keeps_the_contracts() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_contracts_allow_what_the_design_allows(tmp_path: Path) -> None:
    result = lint_imports(made_up_tree(tmp_path, ALLOWED))
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_contract_notices_a_breach(tmp_path: Path) -> None:
    result = lint_imports(made_up_tree(tmp_path, ALLOWED | BREACHES))
    assert result.returncode == 1, result.stdout + result.stderr
    kept = [name for name in contracts().values() if f"{name} BROKEN" not in result.stdout]
    assert kept == [], result.stdout


def test_the_contracts_cover_every_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert sorted(settings["root_packages"]) == existing_packages()
    packages_without_contract = {
        package
        for package in existing_packages()
        if not any(package in str(contract) for contract in settings["contracts"])
    }
    assert packages_without_contract == set()


def test_the_scheduler_imports_only_the_standard_library() -> None:
    outside = {
        f"{path.relative_to(ROOT)}:{found.line}: {found.imported}"
        for path in (ROOT / "areal_sched").rglob("*.py")
        for found in imports_of(ROOT, path)
        if found.imported.partition(".")[0] not in {"areal_sched", *sys.stdlib_module_names}
    }
    assert outside == set()


def test_importing_the_scheduler_loads_only_the_standard_library() -> None:
    # -I -S: no site-packages and no current folder, so that nothing else is loaded beforehand.
    script = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import areal_sched
for module in pkgutil.walk_packages(areal_sched.__path__, "areal_sched."):
    importlib.import_module(module.name)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
print(*sorted(name for name in sys.modules if name.startswith("areal_sched.")))
"""
    command = [sys.executable, "-I", "-S", "-W", "error", "-c", script, str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    loaded, modules = (set(line.split()) for line in result.stdout.splitlines())
    outside = {name for name in loaded - sys.stdlib_module_names if name[:2] != "__"}
    assert {name for name in outside if not name.startswith("_sysconfigdata")} == {"areal_sched"}
    assert {"areal_sched.events", "areal_sched.ids"} <= modules


def test_the_simulator_is_imported_without_its_notebook_module() -> None:
    script = """
import sys
import areal_sim, areal_sim.config
heavy = {"matplotlib", "pandas", "pyarrow", "ray", "rich", "scipy", "streamlit"}
print(sorted(heavy & set(sys.modules)), "areal_sim.notebook" in sys.modules)
import areal_sim.pools.on_ray, areal_sim.sweep
print("ray" in sys.modules, callable(areal_sim.simulate), "pandas" in sys.modules)
"""
    told = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT,
        env=clean_environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told == "[] False\nFalse True False\n"


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"]])
def test_help_answers_without_loading_heavy_packages(arguments: list[str]) -> None:
    script = """
import sys
from areal_sim.cli import main
sys.argv[0] = "areal-sim"
try:
    code = main()
except SystemExit as stop:
    code = stop.code
assert not code, code
print("LOADED", *{name.partition(".")[0] for name in sys.modules})
"""
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        env=clean_environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "usage" in result.stdout.lower()
    loaded = set(result.stdout.rpartition("LOADED")[2].split())
    heavy = {"matplotlib", "megatron", "pandas", "pyarrow", "scipy", "sglang", "streamlit", "torch"}
    assert loaded & heavy == set()


def test_the_table_names_every_package() -> None:
    from tests.house.imports import MAY_IMPORT

    assert set(MAY_IMPORT) == set(PACKAGES)
