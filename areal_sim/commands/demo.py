"""``areal-sim demo``: the paper's 1.5B math run, synchronous and with AReaL."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from areal_sim.commands.show import progress_bar

if TYPE_CHECKING:
    from areal_sim.config import RunConfig
    from areal_sim.rundir import Outcome, Progress

_RUNS = (("synchronous", "1.5b-sync.toml"), ("areal", "1.5b-areal.toml"))


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "demo",
        help="the paper's 1.5B run, synchronous against AReaL",
        description="Simulate the paper's 1.5B math run on 128 H800 (arXiv 2505.24298, table 1), "
        "250 steps of 8192 trajectories, synchronous and with AReaL; print hours and speedup "
        "beside the published ones, and leave both run directories and a picture of both.",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="DIR")
    parser.add_argument("--steps", type=int, metavar="N", help="fewer steps than 250")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.set_defaults(run=run)


def _simulate(
    config: RunConfig, out_dir: Path, progress: Callable[[Progress], None] | None = None
) -> Outcome:
    from areal_sim.rundir import simulate

    return simulate(config, name="1.5B math", out_dir=out_dir, progress=progress)


def run(args: argparse.Namespace) -> int:
    """Carry it out."""
    import shutil
    import sys
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from rich.console import Console
    from rich.table import Table

    from analysis.rundir import check_out_dir
    from analysis.timeline import compare_timelines
    from areal_sim.config import load_config

    folder = Path(__file__).resolve().parents[2] / "configs" / "paper"
    overrides = [] if args.steps is None else [f"workload.steps={args.steps}"]
    configs = {name: load_config(folder / file, overrides) for name, file in _RUNS}
    for name in configs:
        out = args.out / name
        if (out / "journal.jsonl.gz").exists() or (out / "config.toml").exists():
            shutil.rmtree(out)  # an earlier demo; anything else is refused below
        check_out_dir(out)
    # The shorter run goes on in a process of its own; with one core it just takes its turn.
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        other = pool.submit(_simulate, configs["synchronous"], args.out / "synchronous")
        with progress_bar("areal", quiet=args.quiet) as progress:
            areal = _simulate(configs["areal"], args.out / "areal", progress)
        if not args.quiet and not other.done():
            print("waiting for the synchronous run", file=sys.stderr)
        outcomes = {"synchronous": other.result(), "areal": areal}
    for name, outcome in outcomes.items():
        if outcome.interrupted:
            print(
                f"interrupted: {args.out / name} holds the run as far as it came", file=sys.stderr
            )
            return 130
    picture = args.out / "timeline.png"
    compare_timelines(outcomes["synchronous"].recorder, outcomes["areal"].recorder, picture)

    table = Table(
        title="1.5B math on 128 H800: simulated, and published in arXiv 2505.24298, table 1",
        title_justify="left",
    )
    table.add_column("")
    for heading in ("simulated", "published", "error"):
        table.add_column(heading, justify="right")
    table.add_column("basis")
    hours, published = {}, {}
    for name, config in configs.items():
        hours[name] = outcomes[name].summary["simulated_hours"]
        published[name] = config.published_hours or float("nan")
        table.add_row(
            f"{name}, hours",
            f"{hours[name]:.1f}",
            f"{published[name]:.1f}",
            f"{hours[name] / published[name] - 1:+.1%}",
            "fitted",
        )
    speedup = hours["synchronous"] / hours["areal"]
    said = published["synchronous"] / published["areal"]
    table.add_row(
        "speedup", f"{speedup:.2f}x", f"{said:.2f}x", f"{speedup / said - 1:+.1%}", "fitted"
    )
    for side in ("generation", "training"):
        idle = [outcomes[name].summary["idle_share"][side] for name in configs]
        table.add_row(
            f"{side} idle, synchronous and areal",
            " and ".join("-" if share is None else f"{share:.0%}" for share in idle),
            "-",
            "-",
            "predicted",
        )
    console = Console()
    console.print(table)
    if args.steps is not None:
        console.print("published hours are scaled to the steps asked for")
    console.print(f"Both runs, one above the other: {picture}")
    console.print(
        f"Open {args.out / 'areal' / 'trace.json.gz'} in Perfetto to look around in the AReaL run."
    )
    return 0
