"""``areal-sim sweep``: many simulations that differ in a few keys."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from areal_sched.config.overrides import add_overrides, parse_override
from areal_sched.errors import ConfigError
from areal_sim.commands.show import count_bar

if TYPE_CHECKING:
    import pandas as pd

    from areal_sched.config.sweeps import SweepRun
    from areal_sim.config import RunConfig
    from areal_sim.pools import Pool

_COLUMNS = (
    # Key of the summary, heading, form.
    ("step_time_s.mean", "step, s", "{:,.1f}"),
    ("effective_throughput_tokens_per_s", "tokens/s", "{:,.0f}"),
    ("gpu_hours", "GPU-h", "{:,.1f}"),
    ("idle_share.generation", "gen. idle", "{:.0%}"),
    ("idle_share.training", "train. idle", "{:.0%}"),
    ("lag.mean", "lag", "{:.2f}"),
)


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "sweep",
        help="many simulations that differ in a few keys",
        description="Simulate every combination of some values, in parallel processes or on a Ray"
        " cluster; nothing is simulated twice, and after Ctrl-C the same command goes on. Leaves"
        " results.csv, results.parquet and results.png in DIR. What varies comes from --vary, or"
        " from a file with base and [vary] as areal-real sweep reads it.",
        epilog="areal-sim sweep configs/home-8gpu.toml --vary limits.eta=0,1,2,4 "
        "--vary cluster.generation_share=0.5,0.625,0.75 --set workload.steps=10 --out runs/split",
    )
    parser.add_argument("file", type=Path, metavar="CONFIG.toml|SWEEP.toml")
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="KEY=VALUE,VALUE,...",
        help="take each of these values; may be given again for another key",
    )
    add_overrides(parser, example="workload.steps=10")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True)
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="simulations at a time; default: all cores"
    )
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="processes of this machine, or tasks of a Ray cluster; default: local",
    )
    parser.add_argument(
        "--address",
        metavar="ADDR",
        help="of the Ray cluster, as HOST:PORT, ray://HOST:PORT or auto; default: RAY_ADDRESS, and"
        " without that a Ray of its own on this machine",
    )
    parser.add_argument("--list", action="store_true", help="name the runs and do nothing")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry it out."""
    runs = _runs(args)
    names = [each.name for each in runs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"{twice}: two runs of that name; give each value once")
    if args.list:
        print(*names, sep="\n")
        return 0
    from analysis.sweep import draw_sweep, frame_of
    from areal_sim.sweep import sweep

    pool = _pool(args)
    args.out.mkdir(parents=True, exist_ok=True)
    with count_bar("simulations", quiet=args.quiet) as done:
        summaries = sweep(
            {each.name: each.config for each in runs},
            cache=args.out / "simulated",
            pool=pool,
            done=done,
        )
    frame = frame_of({each.name: each.settings for each in runs}, summaries)
    keys = list(runs[0].settings)
    frame.to_csv(args.out / "results.csv", index=False)
    frame.astype(dict.fromkeys(keys, str)).to_parquet(args.out / "results.parquet")
    picture = draw_sweep(frame, keys, args.out / "results.png")
    _show(frame, keys)
    print(f"written to {args.out}: results.csv and results.parquet; the picture is {picture}")
    return 0


def _pool(args: argparse.Namespace) -> Pool:
    """Where to simulate."""
    if args.engine == "ray":
        from areal_sim.pools.on_ray import RayPool

        return RayPool(args.address, args.jobs)
    if args.address is not None:
        raise ConfigError(f"--address {args.address}: only with --engine ray")
    from areal_sim.pools.local import LocalPool

    return LocalPool(args.jobs)


def _runs(args: argparse.Namespace) -> list[SweepRun[RunConfig]]:
    from areal_sched.config.sweeps import combinations, is_sweep, read_sweep
    from areal_sim.config import load_config

    if is_sweep(args.file):
        if args.vary:
            raise ConfigError(f"--vary {args.vary[0]}: {args.file} says itself what varies")
        return read_sweep(
            args.file, lambda path, changes: load_config(path, [*changes, *args.overrides])
        )
    if not args.vary:
        raise ConfigError(f"{args.file}: nothing varies: give --vary, or a file with [vary]")
    vary: dict[str, list[Any]] = {}
    for text in args.vary:
        key, _, values = text.partition("=")
        vary[key] = [parse_override(f"{key}={value}").value for value in values.split(",")]
    return combinations(
        vary, lambda changes: load_config(args.file, [*args.overrides, *changes]), "--vary"
    )


def _show(frame: pd.DataFrame, keys: list[str]) -> None:
    import pandas as pd
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title="* the highest throughput", title_justify="left", box=SIMPLE_HEAD)
    for key in keys:
        table.add_column(key.rpartition(".")[2])
    for _, heading, _ in _COLUMNS:
        table.add_column(heading, justify="right")
    best = frame["effective_throughput_tokens_per_s"].astype(float).idxmax()
    for number, row in frame.iterrows():
        values = [
            "-" if pd.isna(row[column]) else form.format(row[column])
            for column, _, form in _COLUMNS
        ]
        mark = " *" if number == best else ""
        table.add_row(*[str(row[key]) for key in keys[:-1]], f"{row[keys[-1]]}{mark}", *values)
    Console(file=sys.stdout).print(table)
