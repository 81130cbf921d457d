"""``areal-sim run``: simulate one configuration."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from areal_sched.config.overrides import add_overrides as declare_set
from areal_sim.commands.show import print_summary, progress_bar


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "run",
        help="simulate one configuration",
        description="Simulate one configuration and print what came of it. With --out, leave a "
        "run directory: journal, resolved config, summary.json, Parquet tables, pictures, and a "
        "trace for Perfetto. Every key is explained in docs/reference/configuration.md.",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.toml")
    add_overrides(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON alone")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to leave the run directory")
    parser.add_argument("--name", help="shown in titles; the configuration's file name otherwise")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Declare ``--set`` and ``--seed``."""
    declare_set(parser, example="limits.eta=inf or cluster.nodes=1")
    parser.add_argument("--seed", type=int, metavar="N", help="the same as --set sim.seed=N")


def overrides_of(args: argparse.Namespace) -> list[str]:
    """The overrides of a command line."""
    overrides = list(args.overrides)
    if args.seed is not None:
        overrides.append(f"sim.seed={args.seed}")
    return overrides


def run(args: argparse.Namespace) -> int:
    """Carry it out."""
    from areal_sim.config import load_config
    from areal_sim.rundir import simulate

    config = load_config(args.config, overrides_of(args))
    name = args.name or args.config.stem
    with progress_bar(name, quiet=args.quiet or args.json) as progress:
        outcome = simulate(config, name=name, out_dir=args.out, progress=progress)
    if args.json:
        json.dump(outcome.summary, sys.stdout, indent=2)
        print()
    else:
        print_summary(outcome.summary)
        if outcome.out_dir is not None:
            print(f"written to {outcome.out_dir}; the picture is {outcome.out_dir}/timeline.png")
        else:
            print("nothing was kept: add --out DIR for journal, tables, pictures and trace")
    if outcome.interrupted:
        print("interrupted: this is the run as far as it came", file=sys.stderr)
        return 130
    return 0
