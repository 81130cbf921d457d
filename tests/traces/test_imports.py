from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_pandas_is_only_imported_by_what_needs_tables() -> None:
    script = (
        "import sys, traces, traces.loaders, traces.fit\n"
        "entry = traces.preset('math-7b-boba')\n"
        "source = traces.SyntheticWorkload(entry.model, entry.prompt_model, 1, 27648, 1024)\n"
        "source.groups(0, 10, group_size=2, step=0.0)\n"
        "heavy = {'pandas', 'pyarrow', 'scipy'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
