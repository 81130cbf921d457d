"""``areal-sim figures``: draw a run directory's pictures again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from areal_sim.commands.journals import read_noting


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "figures",
        help="make a run directory's tables, pictures and trace again from its journal",
        description="Read a run directory's journal, of a simulated or a real run, and write its "
        "tables, pictures and Perfetto trace again, as far as the journal goes.",
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry it out."""
    from analysis.recorder import journal_sha256
    from analysis.rundir import INTERRUPTED, JOURNAL, SUMMARY, read_summary, write_results
    from analysis.summary import summarise

    path = args.run_dir / JOURNAL
    recorder, notes = read_noting(path)
    for note in notes:
        print(f"areal-sim: note: {note}", file=sys.stderr)
    before = read_summary(args.run_dir) if (args.run_dir / SUMMARY).exists() else {}
    wall_s = float(before.get("wall_s") or 0.0)
    summary = summarise(recorder, recorder.end_ns, wall_s, journal_sha256(path))
    if before.get(INTERRUPTED):
        summary[INTERRUPTED] = True
    write_results(recorder, summary, args.run_dir)
    print(f"written to {args.run_dir}; the picture is {args.run_dir}/timeline.png")
    return 0
