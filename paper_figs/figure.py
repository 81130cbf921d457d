"""What every table and figure of the paper has in common: runs, cells, files, a command line.

A module of this package that reproduces something has

- ``TITLE``: what it is, with its source;
- ``runs()``: the simulations it needs, by name;
- ``make(results)``: cells, notes and a picture from their summaries.

`run` is its command line. `python -m paper_figs` runs them all, in one sweep.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import io
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from areal_sched.errors import ArealError
from areal_sim.config import RunConfig
from areal_sim.sweep import Summary, sweep

Basis = Literal["fitted", "predicted", "overlay"]
Results = Mapping[str, Summary]

OUT = Path("runs/figures")
CACHE = Path("runs/simulated")
EXPECTED = Path(__file__).parent / "expected"
"""The tables as they should come out; a change of the model shows up as a difference."""
IMAGES = Path(__file__).parents[1] / "docs" / "images" / "paper"
"""The pictures of the documentation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One number of a table or figure.

    Attributes:
        name: which.
        unit: of both values.
        published: what the paper says; None where it says nothing.
        simulated: ours.
        basis: ``fitted`` where the model was fitted to it; ``overlay``: published data combined
            with simulated times.
        within: the largest error we allow ourselves; a share of the published value, or with
            `points` in hundredths of the unit. None: no bar.
        points: whether the error is a difference instead of a share.
    """

    name: str
    unit: str
    published: float | None
    simulated: float | None
    basis: Basis
    within: float | None = None
    points: bool = False

    @property
    def error(self) -> float | None:
        """Signed error: a share of the published value, or with `points` a difference."""
        if self.published is None or self.simulated is None:
            return None
        difference = self.simulated - self.published
        return difference if self.points else difference / self.published

    @property
    def verdict(self) -> str:
        """``ok`` or ``miss`` where there is a bar."""
        if self.within is None:
            return ""
        error = self.error
        return "ok" if error is not None and abs(error) <= self.within else "miss"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A figure: ``cells``, lines of text below them, and how to draw it into a new figure.

    ``text`` takes the place of the table of cells where there are too many to list.
    """

    cells: Sequence[Cell]
    text: str | None = None
    notes: Sequence[str] = field(default=())
    draw: Callable[[], Any]


class Module(Protocol):
    """A module of this package."""

    __name__: str
    TITLE: str

    def runs(self) -> dict[str, RunConfig]:
        """The simulations it needs."""

    def make(self, results: Results) -> Made:
        """Cells and picture from their summaries."""


def table(title: str, made: Made) -> str:
    """The figure's numbers as text."""
    if made.text is not None:
        return f"{title}\n\n{made.text}\n"
    head = ("", "published", "simulated", "unit", "error", "bar", "", "basis")
    rows = [head] + [
        (
            cell.name,
            _number(cell.published),
            _number(cell.simulated),
            cell.unit,
            _error(cell.error, cell.points),
            "" if cell.within is None else _error(cell.within, cell.points).lstrip("+"),
            cell.verdict,
            cell.basis,
        )
        for cell in made.cells
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    right = (False, True, True, False, True, True, False, False)
    lines = [title, ""]
    for row in rows:
        parts = [
            text.rjust(width) if aligned else text.ljust(width)
            for text, width, aligned in zip(row, widths, right, strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    if made.notes:
        lines += ["", *made.notes]
    return "\n".join(lines) + "\n"


def csv_text(made: Made) -> str:
    """The same as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ("name", "unit", "published", "simulated", "error", "error_kind", "fitted_or_predicted")
    )
    for cell in made.cells:
        kind = "difference" if cell.points else "share"
        values = [_exact(x) for x in (cell.published, cell.simulated, cell.error)]
        writer.writerow((cell.name, cell.unit, *values, kind, cell.basis))
    return out.getvalue()


def _exact(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if value and abs(value) < 10:
        return f"{value:.2f}"
    return f"{value:.1f}" if abs(value) < 1000 else f"{value:,.0f}"


def _error(error: float | None, points: bool) -> str:
    if error is None:
        return "-"
    return f"{100 * error:+.1f} pts" if points else f"{100 * error:+.1f} %"


def write(name: str, made: Made, text: str, out: Path) -> None:
    """Leave NAME.txt, .csv, .png and .svg in a folder."""
    from analysis.drawing import save, style

    (out / f"{name}.txt").write_text(text)
    (out / f"{name}.csv").write_text(csv_text(made))
    with style():
        figure = made.draw()
        save(figure, out / f"{name}.png")
        figure.savefig(
            out / f"{name}.svg", format="svg", facecolor="white", metadata={"Date": None}
        )


def produce(modules: Sequence[Module], arguments: Sequence[str] | None, prog: str, doc: str) -> int:
    """The command line of one or more modules.

    Returns:
        0; 1 where a table is not as expected; 2 for bad input.
    """
    parser = argparse.ArgumentParser(
        prog=prog, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help=f"default {OUT}")
    parser.add_argument(
        "--cache",
        type=Path,
        default=CACHE,
        metavar="DIR",
        help=f"keeps simulations, so that Ctrl-C loses none; default {CACHE}",
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="processes; default: all cores")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument(
        "--write",
        action="store_true",
        help="take what comes out as what is expected from now on, and for the documentation",
    )
    args = parser.parse_args(arguments)
    try:
        return _produce(modules, args)
    except KeyboardInterrupt:
        print(f"{prog}: interrupted; what is finished is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone; Python would complain once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ArealError, OSError, ValueError) as exc:
        print(f"{prog}: {exc}", file=sys.stderr)
        return 2


def _produce(modules: Sequence[Module], args: argparse.Namespace) -> int:
    from areal_sim.commands.show import count_bar

    args.out.mkdir(parents=True, exist_ok=True)  # before all else: it may not be possible
    needed = {
        f"{short(module)}/{name}": config
        for module in modules
        for name, config in module.runs().items()
    }
    with count_bar("simulations", quiet=args.quiet) as done:
        summaries = sweep(needed, cache=args.cache, jobs=args.jobs, done=done)
    changed = []
    for module in modules:
        name = short(module)
        own = {
            key.removeprefix(f"{name}/"): summary
            for key, summary in summaries.items()
            if key.startswith(f"{name}/")
        }
        made = module.make(own)
        text = table(module.TITLE, made)
        write(name, made, text, args.out)
        print(text)
        expected = EXPECTED / f"{name}.txt"
        if args.write:
            expected.parent.mkdir(exist_ok=True)
            expected.write_text(text)
            IMAGES.mkdir(exist_ok=True)
            shutil.copyfile(args.out / f"{name}.png", IMAGES / f"{name}.png")
        elif (was := _read(expected)) != text:
            changed.append(name)
            sys.stdout.writelines(
                difflib.unified_diff(
                    was.splitlines(keepends=True),
                    text.splitlines(keepends=True),
                    f"{name}: expected",
                    f"{name}: now",
                )
            )
    print(f"tables, CSV and pictures: {args.out}")
    if changed:
        print(f"not as expected: {', '.join(changed)}", file=sys.stderr)
    return 1 if changed else 0


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def short(module: Module) -> str:
    """A module's own name, also where it was started as a program."""
    name = module.__name__.rpartition(".")[2]
    return name if name != "__main__" else Path(str(getattr(module, "__file__", name))).stem


def run(module_name: str) -> int:
    """``python -m paper_figs.NAME``."""
    module: Any = sys.modules[module_name]
    return produce([module], None, f"python -m paper_figs.{short(module)}", module.__doc__ or "")
