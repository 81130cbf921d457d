"""Random fault schedules in simulation: ``python -m benchmarks.fault_schedules``.

Each seed draws a scheduler with options, a small cluster and workload, and up to nine faults of all
kinds there are (`areal_sim.config.fault_schedule.KINDS`): at instants of the run, inside weight
loads and drains, in the first and the last step, several at once. The run is then held against

- the laws of `analysis.audit`, event by event: started = trained + dropped + failed + in flight, no
  trajectory trained twice or after it was settled, lags, places in flight and batches as the limits
  say, by the journal and by the state's own counts;
- its end: all steps are done, or no server is left and none will be back;
- its journal: it reads back, replays to identical commands, and is the same, byte for byte, when
  the run is made again;
- its accounts: every GPU-nanosecond has one cause.

What breaks is printed with its seed and the command that makes that run again; the rest goes on.
"""

from __future__ import annotations

import argparse
import os
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing import get_context

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from areal_sim.config.fault_schedule import KINDS
from benchmarks.fault_runs import Outcome, case_of, check, outcome_of, time_limit

SEEDS = 10_000

COLUMNS = {
    "homeless": "lost their server",
    "trained": "trained",
    "dropped": "dropped",
    "failed": "failed",
    "steps_failed": "steps failed",
}
"""`Outcome.counts`, as the table calls them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the runs and print what became of them.

    Args:
        arguments: command line; the process's own by default.

    Returns:
        1 if something broke, else 0.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fault_schedules",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument("--seed", type=int, help="only this one, shown in full")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)"
    )
    args = parser.parse_args(arguments)
    if args.seeds < 1 or args.jobs < 1:
        parser.error("--seeds and --jobs must be at least 1")
    if args.first < 0 or (args.seed is not None and args.seed < 0):
        parser.error("--first and --seed must be at least 0")
    if args.seed is not None:
        return show(args.seed)
    outcomes = []
    bar = Progress(
        TextColumn("fault schedules"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[broken]} broken"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    broken = 0
    with bar:
        task = bar.add_task("", total=args.seeds, broken=0)
        for outcome in _outcomes(range(args.first, args.first + args.seeds), args.jobs):
            outcomes.append(outcome)
            if outcome.broken:
                broken += 1
                print(_complaint(outcome), flush=True)
            bar.update(task, advance=1, broken=broken)
    outcomes.sort(key=lambda outcome: outcome.seed)
    report(outcomes, Console(width=110))
    return 1 if broken else 0


def _outcomes(seeds: range, jobs: int) -> Iterator[Outcome]:
    if jobs == 1 or len(seeds) == 1:
        yield from map(outcome_of, seeds)
        return
    with get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(outcome_of, seeds, chunksize=10)


def _complaint(outcome: Outcome) -> str:
    return (
        f"seed {outcome.seed} ({outcome.path}): {outcome.broken}\n"
        f"    again: python -m benchmarks.fault_schedules --seed {outcome.seed}"
    )


def show(seed: int) -> int:
    """Make the run of one seed and show it in full; returns 1 if it breaks."""
    try:
        with time_limit():
            case = case_of(seed)
            print(case, flush=True)
            outcome = check(case)
    except Exception:
        traceback.print_exc()
        return 1
    happened = ", ".join(f"{kind} {n}" for kind, n in sorted(outcome.happened.items())) or "none"
    counts = ", ".join(f"{name} {outcome.counts[key]}" for key, name in COLUMNS.items())
    print(f"no law broken; {outcome.ending}; happened: {happened}; rollouts: {counts}")
    return 0


def report(outcomes: Sequence[Outcome], console: Console) -> None:
    """Print what the runs were like, by kind of fault."""
    table = Table(title=f"{len(outcomes)} fault schedules")
    table.add_column("fault")
    for heading in ("happened", "runs", *COLUMNS.values()):
        table.add_column(heading, justify="right")
    for kind in KINDS:
        runs = [outcome for outcome in outcomes if outcome.happened[kind]]
        happened = sum(outcome.happened[kind] for outcome in runs)
        table.add_row(kind, f"{happened:,}", f"{len(runs):,}", *_sums(runs))
    table.add_section()
    happened = sum(sum(outcome.happened.values()) for outcome in outcomes)
    table.add_row("all runs", f"{happened:,}", f"{len(outcomes):,}", *_sums(outcomes))
    console.print(table)
    console.print("Rollouts and steps are those of the runs in which a fault of the kind happened.")
    endings = Counter(outcome.ending or "broken" for outcome in outcomes)
    told = ", ".join(f"{ending}: {count:,}" for ending, count in endings.most_common())
    console.print(f"{told}. Broken: {endings['broken']:,}.")


def _sums(outcomes: Sequence[Outcome]) -> list[str]:
    return [f"{sum(outcome.counts[key] for outcome in outcomes):,}" for key in COLUMNS]


if __name__ == "__main__":
    raise SystemExit(main())
