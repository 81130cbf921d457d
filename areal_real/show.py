"""What people see of a run that goes on: a bar and a live line, or plain lines for a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

PLAIN_EVERY_S = 10.0
"""Where nobody looks at a terminal, a line at most this often."""


class Plain:
    """Writes lines to stderr: for logs."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def phase(self, text: str) -> None:
        """What is going on before the first step."""
        print(f"{text} ...", file=sys.stderr, flush=True)

    def step(self, row: dict[str, float], steps: int) -> None:
        """A step is done."""
        now_s = time.monotonic()
        if now_s >= self._next_s or row["step"] == steps:
            self._next_s = now_s + PLAIN_EVERY_S
            print(f"step {row['step']:.0f}/{steps}  {line(row)}", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Something people should know."""
        print(f"note: {text}", file=sys.stderr, flush=True)


class Quiet(Plain):
    """Tells only what people must know."""

    def phase(self, text: str) -> None:
        """Nothing."""

    def step(self, row: dict[str, float], steps: int) -> None:
        """Nothing."""


class Bar:
    """A progress bar with the newest figures under it."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None, figures="")

    def phase(self, text: str) -> None:
        """What is going on before the first step."""
        self._bar.update(self._task, description=text)

    def step(self, row: dict[str, float], steps: int) -> None:
        """A step is done."""
        self._bar.update(
            self._task,
            description="training",
            total=steps,
            completed=row["step"],
            figures=line(row),
        )

    def note(self, text: str) -> None:
        """Something people should know."""
        self._bar.console.print(f"note: {text}", highlight=False, markup=False)


@contextlib.contextmanager
def watching(*, quiet: bool) -> Iterator[Plain | Bar]:
    """The watcher that suits where stderr goes."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield Quiet() if quiet else Plain()
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
        console=console,
    ) as bar:
        yield Bar(bar)


def line(row: dict[str, float]) -> str:
    """A step's figures in one line."""
    return (
        f"reward {row['reward']:.2f}  lag {row['lag/mean']:.1f} (max {row['lag/max']:.0f})  "
        f"{row['tokens_per_s']:,.0f} tokens/s  "
        f"idle: generation {row['idle_share/generation']:.0%},"
        f" training {row['idle_share/training']:.0%}"
    )
