"""What the simulator costs: ``python -m benchmarks.simulator``.

Every figure is also given as a ratio to a bare `heapq` loop (`benchmarks.unit`) measured before
and after in the same process, because machines differ and are noisy. One core. Each row takes the
best of three runs.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from heapq import heapify, heapreplace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from areal_sched.journal import JournalReader, JournalWriter
from areal_sched.limits import Limits
from areal_sched.load import load
from areal_sched.replay import replay
from areal_sim.build import header_of, setup_of
from areal_sim.config import RunConfig, load_config
from areal_sim.engine import Engine, Request
from areal_sim.simulation import Setup, Simulation
from benchmarks.unit import bare_loop_per_s
from traces import WorkloadSource

ROOT = Path(__file__).resolve().parents[1]
MAIN = ROOT / "configs" / "scale-512.toml"
"""512 GPUs, 7B, 32k context, 8192 trajectories a step, AReaL."""

STEPS = 8
REPEATS = 3
# The bars, for the table to say whether they are met.
BAR_PER_S, BAR_RATIO, BAR_REAL_TIME, BAR_GROWTH, BAR_MEMORY_GB = 50_000, 0.05, 2_000, 1.3, 1.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out scaling and memory")
    args = parser.parse_args(arguments)
    console = Console(width=110)
    gc.disable()
    layers(console)
    if not args.quick:
        scaling(console)
        memory(console)
    start_up(console)


# ---- layers --------------------------------------------------------------------------------------


def layers(console: Console) -> None:
    """The main case, layer upon layer."""
    config = load_config(MAIN, [f"workload.steps={STEPS}"])
    before = max(bare_loop_per_s() for _ in range(3))
    rows = [
        ("server model alone (closed loop, no SimPy, no updates)", best(lambda: engines(config))),
        ("replay: state and scheduler alone, from memory", best(lambda: replayed(config))),
        ("the whole run, no journal", best(lambda: whole(config, journal=False))),
        ("the whole run, journal on", best(lambda: whole(config, journal=True))),
    ]
    after = max(bare_loop_per_s() for _ in range(3))
    bare = (before + after) / 2
    table = Table(title=f"512 GPUs, 8192 trajectories a step, {STEPS} steps, one core")
    for heading in ("layer", "trajectories/s", "us each", "ratio to bare heapq", "real time"):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    table.add_row("bare heapq loop, before and after", f"{before:,.0f}, {after:,.0f}", "", "1", "")
    for name, (count, wall_s, simulated_s) in rows:
        rate = count / wall_s
        table.add_row(
            name,
            f"{rate:,.0f}",
            f"{1e6 / rate:.1f}",
            f"{rate / bare:.3f}",
            f"{simulated_s / wall_s:,.0f}x" if simulated_s else "",
        )
    console.print(table)
    count, wall_s, simulated_s = rows[-1][1]
    verdict(console, "trajectories/s", count / wall_s, BAR_PER_S)
    verdict(console, "ratio to bare heapq", count / wall_s / bare, BAR_RATIO)
    verdict(console, "real-time factor", simulated_s / wall_s, BAR_REAL_TIME)
    console.print(
        f"SimPy events a finished trajectory: {simpy_events(config):.2f} (bar: at most 2)"
    )


Measured = tuple[int, float, float]
"""Trajectories, wall-clock seconds, simulated seconds."""


def best(measure: Callable[[], Measured]) -> Measured:
    """The fastest of a few."""
    return min((measure() for _ in range(REPEATS)), key=lambda x: x[1] / x[0])


def whole(config: RunConfig, *, journal: bool, sink: Path | None = None) -> Measured:
    """Simulate; trajectories that finished generating are counted."""
    writer = None
    if journal:
        path = sink or Path(os.devnull)
        writer = JournalWriter(path.open("wb"), header_of(config, "benchmark"))
    setup, scheduler = setup_of(config), config.new_scheduler()
    began_s = time.perf_counter()
    simulation = Simulation(
        setup,
        scheduler,
        record=writer.record if writer else None,
        measure=writer.measure if writer else None,
    )
    simulation.run()
    simulation.close()
    if writer:
        writer.close()
    wall_s = time.perf_counter() - began_s
    return simulation.executor.finished_rollouts, wall_s, simulation.now_ns / 1e9


def simpy_events(config: RunConfig) -> float:
    """SimPy events a finished trajectory."""
    simulation = Simulation(setup_of(config), config.new_scheduler())
    simulation.run()
    return simulation.simpy_events / simulation.executor.finished_rollouts


def replayed(config: RunConfig) -> Measured:
    """Handle the run's events again: decoding is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl.gz"
        count, _, simulated_s = whole(config, journal=True, sink=path)
        reader = JournalReader(path)
        entries = list(reader.entries())
        limits = Limits(**reader.header["limits"])
        scheduler = load(reader.header["scheduler"], limits, reader.header["options"])
    began_s = time.perf_counter()
    replay(entries, scheduler, limits)
    return count, time.perf_counter() - began_s, simulated_s


def engines(config: RunConfig) -> Measured:
    """Servers that replace each finished rollout by the next one at once."""
    setup = setup_of(config)
    per_server = max(1, setup.limits.max_rollouts_in_flight // setup.servers)
    lengths = _lengths(setup.source, setup.limits, STEPS)
    fleet = [_engine(setup) for _ in range(setup.servers)]
    next_one = 0
    for engine in fleet:
        for _ in range(per_server):
            engine.submit(Request(next_one, *lengths[next_one]), 0)
            next_one += 1
        engine.plan()
    due = [(engine.next_visible_fs() or 0, number) for number, engine in enumerate(fleet)]
    heapify(due)
    count = 0
    began_s = time.perf_counter()
    while next_one < len(lengths):
        now_fs, number = due[0]
        engine = fleet[number]
        for _ in engine.advance(now_fs):
            count += 1
            if next_one < len(lengths):
                engine.submit(Request(next_one, *lengths[next_one]), now_fs)
                next_one += 1
        engine.plan()
        heapreplace(due, (engine.next_visible_fs() or 1 << 80, number))
    return count, time.perf_counter() - began_s, due[0][0] / 1e15


def _engine(setup: Setup) -> Engine:
    return Engine(
        setup.costs.server(),
        max_running_rollouts=setup.max_running_rollouts,
        kv_cache_tokens=setup.kv_cache_tokens,
        prefill_chunk_tokens=setup.prefill_chunk_tokens,
        kv_reserve_tokens=setup.kv_reserve_tokens,
    )


def _lengths(source: WorkloadSource, limits: Limits, steps: int) -> list[tuple[int, int]]:
    groups = limits.train_batch_rollouts * (steps + 1) // limits.group_size
    batch = source.groups(0, groups, group_size=limits.group_size, step=0)
    prompts = batch.prompt_tokens.tolist()
    return [
        (prompt, response)
        for prompt, responses in zip(prompts, batch.response_tokens.tolist(), strict=True)
        for response in responses
    ]


# ---- scaling, memory, start-up -------------------------------------------------------------------


def scaling(console: Console) -> None:
    """Cost per trajectory over size, length and concurrency."""
    table = Table(title="Cost per trajectory, journal on")
    for heading in ("what grows", "from", "to", "us each", "us each", "growth"):
        table.add_column(heading, justify="left" if heading == "what grows" else "right")
    for name, small, large, first, second in _GROWTH:
        costs = [_us_each(overrides) for overrides in (first, second)]
        growth = costs[1] / costs[0]
        good = "met" if growth < BAR_GROWTH else "MISSED"
        table.add_row(
            name,
            small,
            large,
            f"{costs[0]:.1f}",
            f"{costs[1]:.1f}",
            f"{growth:.2f} ({good}, bar {BAR_GROWTH})",
        )
    console.print(table)


def _us_each(overrides: Sequence[str]) -> float:
    config = load_config(MAIN, [f"workload.steps={STEPS}", *overrides])
    repeats = 1 if config.workload.steps * config.train_batch_rollouts > 200_000 else REPEATS
    measured = [whole(config, journal=True) for _ in range(repeats)]
    return min(1e6 * wall_s / count for count, wall_s, _ in measured)


# A server that holds 1024 rollouts: responses a tenth as long, 8 servers.
_CONCURRENCY = (
    "cluster.nodes=8",
    "cluster.generation_share=0.125",
    "workload.length_scale=0.1",
    "workload.prompts_per_step=128",
    "sim.server.static_memory_fraction=0.8",
)


_GROWTH = (
    (
        "GPUs, same rollouts and batch per GPU",
        "64",
        "4096",
        ["cluster.nodes=8", "workload.prompts_per_step=64", "limits.max_rollouts_in_flight=1024"],
        [
            "cluster.nodes=512",
            "workload.prompts_per_step=4096",
            "limits.max_rollouts_in_flight=65536",
            "workload.steps=3",
        ],
    ),
    ("GPUs, always 8192 rollouts", "64", "4096", ["cluster.nodes=8"], ["cluster.nodes=512"]),
    ("steps", "10", "250", ["workload.steps=10"], ["workload.steps=250"]),
    (
        "rollouts in flight a server",
        "256",
        "1024",
        [*_CONCURRENCY, "limits.max_rollouts_in_flight=2048"],
        [*_CONCURRENCY, "limits.max_rollouts_in_flight=8192"],
    ),
)
"""What grows, from, to, and the overrides of either end."""


def memory(console: Console) -> None:
    """Peak memory of 250 steps, tables of analysis included, in a process of its own."""
    code = (
        "from pathlib import Path; from areal_sim.config import load_config;"
        "from areal_sim.rundir import simulate;"
        f"simulate(load_config({str(MAIN)!r}, ['workload.steps=250']), name='memory');"
        "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    gigabytes = int(out.stdout.split()[-1]) * 1024 / 1e9
    good = "met" if gigabytes < BAR_MEMORY_GB else "MISSED"
    console.print(
        f"Peak memory, 250 steps of 8192: {gigabytes:.2f} GB ({good}, bar {BAR_MEMORY_GB} GB)"
    )


def start_up(console: Console) -> None:
    """``areal-sim --help``, best of five."""
    times = []
    for _ in range(5):
        began_s = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "areal_sim.cli", "--help"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        times.append(time.perf_counter() - began_s)
    good = "met" if min(times) < 0.5 else "MISSED"
    console.print(f"areal-sim --help: {min(times):.2f} s ({good}, bar 0.5 s)")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    console.print(f"(this benchmark's own peak memory: {peak:.2f} GB)")


def verdict(console: Console, name: str, value: float, bar: float) -> None:
    """Say whether a bar is met."""
    good = "met" if value >= bar else "MISSED"
    console.print(f"{name}: {value:,.3f} ({good}, bar {bar:,})")


if __name__ == "__main__":
    main()
