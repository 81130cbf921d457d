"""What the commands print: progress bars and tables."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from areal_sim.rundir import Progress


@contextlib.contextmanager
def progress_bar(title: str, *, quiet: bool = False) -> Iterator[Callable[[Progress], None] | None]:
    """A bar on stderr with steps, simulated time, real-time factor and time left.

    Yields:
        What to call with each `Progress`; None if quiet.
    """
    if quiet:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("steps  {task.fields[simulated]} simulated  {task.fields[factor]} real time "),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    task = bar.add_task(title, total=None, simulated="0 h", factor="-")

    def show(progress: Progress) -> None:
        # Only now: what is wrong with the configuration is said first, and alone.
        bar.start()
        bar.update(
            task,
            total=progress.wanted,
            completed=progress.steps,
            simulated=duration(progress.simulated_s),
            factor=f"{progress.simulated_s / max(progress.wall_s, 1e-9):,.0f}x",
        )

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()


@contextlib.contextmanager
def count_bar(title: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr for many simulations: how many are done, of how many, time left.

    Yields:
        What to call with both counts; None if quiet.
    """
    if quiet:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn())
    bar = Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True))
    task = bar.add_task(title, total=None)

    def show(done: int, wanted: int) -> None:
        if wanted:
            bar.start()
            bar.update(task, total=wanted, completed=done)

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()


@contextlib.contextmanager
def stage_bar(*, quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr for work in stages.

    Yields:
        What to call with the stage's name, how much of it is done, and how much there is.
    """
    if quiet:
        yield lambda stage, done, wanted: None
        return
    with contextlib.ExitStack() as stack:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn())
        bar = Bar(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True)
        task = bar.add_task("", total=None)

        def show(stage: str, done: int, wanted: int) -> None:
            if not bar.live.is_started:
                stack.enter_context(bar)
            bar.update(task, description=f"{stage:14}", total=max(wanted, 1), completed=done)

        yield show


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def print_summary(summary: dict[str, Any]) -> None:
    """Print a run's main figures as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=str(summary["name"]), show_header=False, title_justify="left")
    table.add_column(justify="left")
    table.add_column(justify="right")
    for label, value in summary_rows(summary):
        table.add_row(label, value)
    Console().print(table)


def summary_rows(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Label and text of a run's main figures."""

    def text(value: float | None, form: str) -> str:
        return "-" if value is None else form.format(value)

    step, lag, idle = summary["step_time_s"], summary["lag"], summary["idle_share"]
    yield "training steps", f"{summary['steps']:,}"
    yield "  of these left out as start-up below (*)", f"{summary['transient_steps']:,}"
    yield "simulated time", duration(summary["simulated_hours"] * 3600)
    yield "GPU-hours", f"{summary['gpu_hours']:,.1f}"
    yield (
        "cost, and by trained tokens",
        f"{text(summary['cost_usd'], '{:,.2f} USD')}, "
        f"{text(summary['usd_per_million_trained_tokens'], '{:,.3g} USD/million')}",
    )
    yield (
        "energy, and by trained tokens",
        f"{text(summary['energy_kwh'], '{:,.1f} kWh')}, "
        f"{text(summary['energy_j_per_trained_token'], '{:,.3g} J/token')}",
    )
    yield "step time, mean (*)", text(step["mean"], "{:,.1f} s")
    yield (
        "step time, median and 99th percentile (*)",
        (f"{text(step['p50'], '{:,.1f} s')}, {text(step['p99'], '{:,.1f} s')}"),
    )
    yield (
        "effective throughput (*)",
        text(summary["effective_throughput_tokens_per_s"], "{:,.0f} tokens/s"),
    )
    yield "generated (*)", text(summary["generated_tokens_per_s"], "{:,.0f} tokens/s")
    yield "recomputed after interruptions", f"{summary['recomputed_tokens']:,} tokens"
    yield "generation idle (*)", text(idle["generation"], "{:.1%}")
    yield "training idle (*)", text(idle["training"], "{:.1%}")
    yield "lag, mean and largest (*)", f"{text(lag['mean'], '{:.2f}')}, {text(lag['max'], '{}')}"
    yield "interruptions", f"{summary['interruptions']:,}"
    yield "trajectories trained", f"{summary['trajectories']:,}"
    yield "trajectories discarded", f"{summary['discarded_trajectories']:,}"
    yield (
        "wall clock",
        (
            f"{summary['wall_s']:.1f} s, {text(summary['trajectories_per_wall_s'], '{:,.0f}')} "
            f"trajectories/s, {text(summary['realtime_factor'], '{:,.0f}')}x real time"
        ),
    )
