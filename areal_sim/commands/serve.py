"""``areal-sim serve``: an inference trace through the servers alone."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from areal_sim.commands.run import add_overrides, overrides_of


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "serve",
        help="send an inference trace through the servers alone",
        description="Send the requests of a trace with arrival times (Azure, Mooncake, BurstGPT, "
        "Vidur, or this project's own workload format) through the servers of a configuration: "
        "no scheduler, no trainer. Each goes to the server with the fewest requests.",
    )
    parser.add_argument("trace", type=Path, metavar="TRACE")
    parser.add_argument("--config", type=Path, required=True, metavar="CONFIG.toml")
    parser.add_argument("--servers", type=int, metavar="N", help="instead of the configuration's")
    parser.add_argument("--format", metavar="NAME", help="of the trace; seen from its header")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N requests")
    add_overrides(parser)
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry it out."""
    import dataclasses
    import time

    import numpy as np

    from areal_sched.errors import ConfigError
    from areal_sim.build import setup_of
    from areal_sim.config import load_config
    from areal_sim.serving import serve
    from traces import load

    setup = setup_of(load_config(args.config, overrides_of(args)))
    for name, value in (("--servers", args.servers), ("--limit", args.limit)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} {value}: expected a whole number >= 1")
    if args.servers is not None:
        setup = dataclasses.replace(setup, servers=args.servers)
    table = load(args.trace, args.format)
    if "arrival_ns" not in table:
        raise ConfigError(f"{args.trace}: the trace has no arrival times")
    table = table.sort_values("arrival_ns", kind="stable").head(args.limit or len(table))
    columns = (
        table[name].to_numpy(np.int64)
        for name in ("arrival_ns", "prompt_tokens", "response_tokens")
    )
    began_s = time.perf_counter()
    served = serve(setup, *columns)
    wall_s = time.perf_counter() - began_s
    latency = served.latency_s
    makespan_s = served.makespan_ns / 1e9
    result = {
        "trace": args.trace.name,
        "requests": len(latency),
        "skipped_records": int(table.attrs.get("skipped_records", 0)),
        "servers": served.servers,
        "makespan_s": makespan_s,
        "response_tokens_per_s": float(served.response_tokens.sum() / makespan_s),
        "latency_s": {
            "mean": float(latency.mean()),
            **{f"p{q}": float(np.percentile(latency, q)) for q in (50, 90, 99)},
            "max": float(latency.max()),
        },
        "busy_share": served.busy_ns / (served.servers * served.makespan_ns),
        "preemptions": served.preemptions,
        "wall_s": wall_s,
        "requests_per_wall_s": len(latency) / wall_s,
    }
    if args.json:
        json.dump(result, sys.stdout, indent=2)
        print()
        return 0
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=f"{args.trace.name} through {served.servers} servers", show_header=False)
    shown.add_column()
    shown.add_column(justify="right")
    shown.add_row("requests", f"{len(latency):,}")
    shown.add_row("from first arrival to last token", f"{makespan_s:,.1f} s")
    shown.add_row("generated", f"{result['response_tokens_per_s']:,.0f} tokens/s")
    shown.add_row("latency, mean", f"{latency.mean():.2f} s")
    for q in (50, 90, 99):
        shown.add_row(f"latency, {q}th percentile", f"{np.percentile(latency, q):.2f} s")
    shown.add_row("servers busy", f"{result['busy_share']:.1%}")
    shown.add_row("preemptions", f"{served.preemptions:,}")
    shown.add_row("wall clock", f"{wall_s:.2f} s, {len(latency) / wall_s:,.0f} requests/s")
    Console().print(shown)
    return 0
