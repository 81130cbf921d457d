"""The folder a run leaves behind, the same for simulated and real ones.

A run directory holds ``journal.jsonl.gz`` (streamed while the run goes on), ``config.toml`` (with
every default), ``summary.json``, ``trajectories.parquet``, ``steps.parquet``, ``accounts.csv``,
``timeline.png``, ``figures/`` and ``trace.json.gz`` (opens in Perfetto). It comes into being only
when the configuration has proved good, and the summary is its last file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from areal_sched.errors import ConfigError

if TYPE_CHECKING:
    from analysis.recorder import RunRecorder

JOURNAL = "journal.jsonl.gz"
CONFIG = "config.toml"
SUMMARY = "summary.json"
TIMELINE = "timeline.png"
TRACE = "trace.json.gz"

INTERRUPTED = "interrupted_by_user"
"""Key of a summary, true where Ctrl-C ended the run before its last step."""


def check_out_dir(out_dir: Path) -> None:
    """Refuse a folder that has something in it.

    Raises:
        ConfigError: it does, or it is a file.
    """
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise ConfigError(f"--out {out_dir}: exists and is not empty; name another folder")


def write_results(recorder: RunRecorder, summary: dict[str, Any], out_dir: Path) -> None:
    """Write tables, pictures and exports of a run, and last its summary."""
    # Here: matplotlib and pyarrow take a second to import, and a summary is read without them.
    from analysis.accounts import accounts
    from analysis.chrome_trace import write_chrome_trace
    from analysis.figures import write_figures
    from analysis.tables import write_tables
    from analysis.timeline import draw_timeline

    write_tables(recorder, out_dir)
    whole = accounts(recorder)
    lines = [f"{cause},{gpu_ns / 1e9:.9f}" for cause, gpu_ns in whole.gpu_ns.items()]
    lines.append(f"total,{whole.total_gpu_ns / 1e9:.9f}")
    (out_dir / "accounts.csv").write_text("\n".join(["cause,gpu_seconds", *lines]) + "\n")
    draw_timeline(recorder, out_dir / TIMELINE)
    write_figures(recorder, out_dir / "figures")
    write_chrome_trace(recorder, out_dir / TRACE)
    part = out_dir / (SUMMARY + ".part")
    part.write_text(json.dumps(summary, indent=2) + "\n")
    part.replace(out_dir / SUMMARY)


def read_summary(run_dir: Path) -> dict[str, Any]:
    """The summary of a run directory.

    Raises:
        ConfigError: the folder is none, or its summary cannot be read.
    """
    from analysis.summary import WALL_CLOCK_KEYS, keys_of

    path = run_dir / SUMMARY
    try:
        summary = json.loads(path.read_text())
    except OSError as exc:
        raise ConfigError(f"{run_dir}: no run directory ({exc.strerror}: {path.name})") from None
    except ValueError as exc:
        raise ConfigError(f"{path}: {exc}") from None
    if not isinstance(summary, dict):
        raise ConfigError(f"{path}: not a summary")
    for key, value in keys_of(summary).items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if key in WALL_CLOCK_KEYS and value is not None and not number:
            raise ConfigError(f"{path}: {key} = {value!r}: expected a number")
    if "steps" not in summary:
        raise ConfigError(f"{path}: not a summary (it has no key 'steps')")
    return summary
