"""``areal-real evaluate``: accuracy on held-out problems of a run that was broken off."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "evaluate",
        help="evaluate what a run published and has not evaluated yet",
        description="Start the servers of a run directory's configuration and evaluate, on its "
        "held-out problems, the published weights that are still there and not evaluated yet.",
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry it out."""
    from areal_real.session import evaluate_again
    from areal_real.show import watching

    with watching(quiet=args.quiet) as watcher:
        accuracy = evaluate_again(args.run_dir, watcher)
    for step, share in sorted(accuracy.items()):
        print(f"step {step:6d}  {share:.1%}")
    return 0
