"""``areal-real sweep``: real runs that differ in a few keys."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "sweep",
        help="many runs that differ in a few keys, resumed where they stopped",
        description="Carry out every combination that a sweep's file asks for, one run after the "
        "other. The same command again goes on where it was stopped, inside a run too. "
        "results.jsonl in DIR has one line per finished run. Example of a file: "
        "configs/sweeps/staleness-ablation.toml.",
    )
    parser.add_argument("sweep", type=Path, metavar="SWEEP.toml")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True)
    parser.add_argument("--list", action="store_true", help="name the runs and do nothing")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry it out."""
    from areal_real.sweep import SweepRun, read_sweep, sweep

    runs = read_sweep(args.sweep)
    if args.list:
        for each in runs:
            print(each.name)
        return 0
    from areal_real.session import train
    from areal_real.show import watching

    def one(each: SweepRun, path: Path, resume: bool) -> bool:
        with watching(quiet=False) as watcher:
            watcher.note(f"run {1 + runs.index(each)} of {len(runs)}: {each.name}")
            result = train(each.config, path, name=each.name, watcher=watcher, resume=resume)
        return not result.outcome.interrupted

    finished = 0
    for each, row in sweep(runs, args.out, one):
        finished += 1
        accuracy = row["held_out"][-1][1] if row["held_out"] else float("nan")
        print(f"{each.name}: held-out accuracy {accuracy:.1%} in {row['minutes']:.1f} min")
    if finished < len(runs):
        print(f"{finished} of {len(runs)} runs are done; the same command goes on", file=sys.stderr)
        return 130
    return 0
