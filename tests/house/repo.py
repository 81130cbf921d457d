"""What the tests of the house share: where the repository is and which files it has."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PACKAGES = ("analysis", "areal_real", "areal_sched", "areal_sim", "paper_figs", "traces")
"""Every package the design names; some are written later than others."""

NOT_SOURCE = {".git", ".hypothesis", ".venv", "__pycache__", "build", "dist", "runs", "site"}


def existing_packages(root: Path = ROOT) -> list[str]:
    """Returns the packages that are there, by name."""
    return [name for name in PACKAGES if (root / name / "__init__.py").is_file()]


def is_made(name: str) -> bool:
    """Tells whether a file or folder of that name is made by a tool and not written."""
    return name in NOT_SOURCE or name.endswith(("_cache", ".egg-info"))


@cache
def source_files() -> tuple[Path, ...]:
    """Returns the files git tracks or would track; without git, all that look like source."""
    if shutil.which("git") and (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    else:
        paths = [
            path
            for path in ROOT.rglob("*")
            if not any(is_made(part) for part in path.relative_to(ROOT).parts)
        ]
    return tuple(sorted(path for path in paths if path.is_file()))


def python_files() -> tuple[Path, ...]:
    """Returns the Python files of the repository."""
    return tuple(path for path in source_files() if path.suffix == ".py")


def clean_environment(**settings: str) -> dict[str, str]:
    """Returns the environment for a child: without what an outer `make` handed down."""
    dropped = {"MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "PYTHON", "PYTEST_ARGS", "VENV"}
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    return kept | settings
