"""``areal-sim compare``: two runs side by side."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from areal_sim.commands.run import add_overrides, overrides_of
from areal_sim.commands.show import progress_bar

if TYPE_CHECKING:
    from analysis.recorder import RunRecorder


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "compare",
        help="two runs side by side",
        description="Compare two runs. Each is a run directory, or a configuration that is "
        "simulated first (with --set and --seed, given to both).",
    )
    parser.add_argument("a", type=Path, metavar="A", help="a config or a run directory")
    parser.add_argument("b", type=Path, metavar="B", help="a config or a run directory")
    add_overrides(parser)
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument(
        "--picture", type=Path, metavar="PNG", help="draw both timelines one above the other"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry it out."""
    from analysis.compare import compare

    overrides = overrides_of(args)
    (a, run_a), (b, run_b) = (_load(path, overrides, args) for path in (args.a, args.b))
    comparison = compare(a, b)
    if args.json:
        json.dump(comparison.to_json(), sys.stdout, indent=2)
        print()
    else:
        from rich.console import Console

        Console().print(comparison.table())
    if args.picture is not None:
        from analysis.timeline import compare_timelines

        assert run_a is not None
        assert run_b is not None
        compare_timelines(run_a, run_b, args.picture)
        if not args.json:
            print(f"the picture is {args.picture}")
    return 0


def _load(
    path: Path, overrides: list[str], args: argparse.Namespace
) -> tuple[dict[str, Any], RunRecorder | None]:
    from analysis.rundir import JOURNAL, read_summary
    from areal_sim.rundir import simulate

    if path.is_dir():
        from analysis.recorder import read_run

        return read_summary(path), read_run(path / JOURNAL) if args.picture else None
    from areal_sim.config import load_config

    config = load_config(path, overrides)
    with progress_bar(path.stem, quiet=args.json) as progress:
        outcome = simulate(config, name=path.stem, progress=progress)
    if outcome.interrupted:
        raise KeyboardInterrupt
    return outcome.summary, outcome.recorder
