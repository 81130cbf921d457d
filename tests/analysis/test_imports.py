"""Heavy packages are imported by the functions that use them, and pyplot never."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("matplotlib", "pandas", "pyarrow", "rich", "scipy")


def run(code: str) -> str:
    """Run code in an interpreter of its own and return what it prints."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_the_package_is_light() -> None:
    modules = [f"analysis.{path.stem}" for path in sorted((ROOT / "analysis").glob("*.py"))]
    loaded = run(f"import sys, {', '.join(modules)}; print(*sys.modules)").split()
    assert not [name for name in HEAVY if name in loaded]


def test_drawing_uses_no_pyplot() -> None:
    code = (
        "import sys, tempfile; from pathlib import Path;"
        "from tests.analysis.by_hand import recorder;"
        "from analysis.timeline import draw_timeline; from analysis.figures import write_figures;"
        "made = recorder({0: [('idle', 9)]}, [('idle', 9)]);"
        "folder = Path(tempfile.mkdtemp());"
        "draw_timeline(made, folder / 'a.png'); write_figures(made, folder); print(*sys.modules)"
    )
    loaded = run(code).split()
    assert "matplotlib.figure" in loaded
    assert "matplotlib.pyplot" not in loaded
