"""``areal-real train``: one real run."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from areal_sched.config.overrides import add_overrides


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "train",
        help="train with SGLang and Megatron-Core",
        description="Start SGLang servers and a Megatron-Core trainer, let the scheduler drive "
        "them for the configured steps, and evaluate on held-out problems. The run directory holds "
        "journal, checkpoints, metrics (JSONL and TensorBoard), tables and pictures. Ctrl-C ends "
        "the run after the step in progress, with a checkpoint; --resume goes on from there, also "
        "after a crash. Every key is explained in docs/reference/configuration.md.",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.toml")
    add_overrides(parser, example="limits.eta=4 or workload.steps=20")
    parser.add_argument("--seed", type=int, metavar="N", help="the same as --set real.seed=N")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="the run directory")
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="where servers and trainer start: on this machine, or on a Ray cluster's nodes, which"
        " have to share DIR (default: %(default)s)",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="of the Ray cluster's head; auto: the one this machine is a node of; local: a Ray of "
        "its own (default: $RAY_ADDRESS, or local)",
    )
    there = parser.add_mutually_exclusive_group()
    there.add_argument("--resume", action="store_true", help="go on with the run in DIR")
    there.add_argument(
        "--resume-if-there",
        action="store_true",
        help="go on with the run in DIR if there is one, else begin it: for jobs that start again",
    )
    there.add_argument("--overwrite", action="store_true", help="replace the run in DIR")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON alone")
    parser.add_argument("--name", help="shown in titles; the configuration's file name otherwise")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry it out."""
    from areal_real.config import load_config
    from areal_real.session import train
    from areal_real.show import watching
    from areal_sched.errors import ConfigError

    overrides = list(args.overrides)
    if args.seed is not None:
        overrides.append(f"real.seed={args.seed}")
    config = load_config(args.config, overrides)
    if args.address is not None and args.engine != "ray":
        raise ConfigError(f"--address {args.address}: belongs to --engine ray")
    name = args.name or args.config.stem
    with watching(quiet=args.quiet or args.json) as watcher:
        placed = None
        if args.engine == "ray":
            from areal_real.placement.join import OnRay

            placed = OnRay(args.address, watcher.note)
        result = train(
            config,
            args.out,
            name=name,
            watcher=watcher,
            resume=args.resume,
            resume_if_there=args.resume_if_there,
            overwrite=args.overwrite,
            placed=placed,
        )
    if args.json:
        json.dump(result.summary, sys.stdout, indent=2)
        print()
    else:
        _print(result, args.out)
    if result.outcome.interrupted:
        print(
            f"interrupted after step {result.outcome.steps}; the same command with --resume"
            " goes on",
            file=sys.stderr,
        )
        return 130
    return 0


def _print(result: Any, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    summary = result.summary
    if not summary:
        return
    table = Table(title=str(summary["name"]), show_header=False, title_justify="left")
    table.add_column(justify="left")
    table.add_column(justify="right")
    steps = sorted(result.held_out)
    if steps:
        table.add_row("held-out accuracy before RL", f"{result.held_out[steps[0]]:.1%}")
        table.add_row(
            f"held-out accuracy after step {steps[-1]}", f"{result.held_out[steps[-1]]:.1%}"
        )
    table.add_row("training steps", str(summary["steps"]))
    table.add_row("minutes from first rollout to last step", f"{summary['wall_s'] / 60:.1f}")
    table.add_row("trajectories trained", f"{summary['trajectories']:,}")
    for side in ("generation", "training"):
        share = summary["idle_share"][side]
        table.add_row(f"idle share of {side}", "-" if share is None else f"{share:.0%}")
    lag = summary["lag"]
    if lag["mean"] is not None:
        table.add_row("lag, mean and max, in versions", f"{lag['mean']:.2f} and {lag['max']}")
    table.add_row("interruptions of rollouts", f"{summary['interruptions']:,}")
    Console().print(table)
    print(f"learning curve: {out}/learning.png   timeline: {out}/timeline.png")
