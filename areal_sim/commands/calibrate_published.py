"""``areal-sim calibrate-published``: fit the model of the paper's cluster."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from areal_sim.commands.show import count_bar

if TYPE_CHECKING:
    from areal_sim.published.fit import Fit


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "calibrate-published",
        help="fit the model of the paper's cluster",
        description="Fit eight numbers, each with a prior and a source, to the 1.5B and 14B rows of"
        " the AReaL paper's table 1 and to its figure 6a (arXiv 2505.24298). Everything else of"
        " that paper is predicted from them (python -m paper_figs). Writes calibration.toml with"
        " values, their errors and residuals, and the configuration of every cell of table 1. Takes"
        " some minutes; simulations are kept, so that after Ctrl-C the same command goes on.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where to write all of it; by default where everything else reads it:"
        " areal_sim/published and configs/paper",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("runs/simulated"),
        metavar="DIR",
        help="keeps simulations; default runs/simulated",
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="processes; default: all cores")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry it out."""
    from areal_sim.commands.files import replace_together, text_writer
    from areal_sim.published import calibration
    from areal_sim.published.fit import fit
    from areal_sim.published.systems import files_of

    folder = args.out or calibration.FOLDER
    file = calibration.FILE if args.out is None else args.out / calibration.FILE.name
    folder.mkdir(parents=True, exist_ok=True)

    def told(text: str) -> None:
        if not args.quiet:
            print(text, file=sys.stderr)

    with count_bar("simulations", quiet=args.quiet) as done:
        found = fit(cache=args.cache, jobs=args.jobs, told=told, done=done)
    texts = {file: toml_of_fit(found)}
    texts |= {folder / name: text for name, text in files_of(found.values).items()}
    replace_together({path: text_writer(text) for path, text in texts.items()})
    _show(found)
    print(f"written: {file}, and a configuration for every cell in {folder}")
    return 0


def toml_of_fit(found: Fit) -> str:
    """What is kept: values, errors, residuals."""
    from areal_sim.published.calibration import PARAMETERS

    lines = [
        "# The eight numbers of the paper's cluster (arXiv 2505.24298).",
        "# Written by areal-sim calibrate-published; what each means is in",
        "# areal_sim/published/calibration.py.",
        "",
        "[values]",
    ]
    for parameter in PARAMETERS:
        value = found.values[parameter.name]
        lines.append(f"{parameter.name} = {value!r}  # {parameter.unit}, prior {parameter.prior:g}")
    lines += ["", "[errors]", "# One standard error, as a factor: times or divided by."]
    lines += [f"{name} = {error:.3f}" for name, error in found.errors.items()]
    for row in found.residuals:
        lines += [
            "",
            "[[residuals]]",
            f'name = "{row.name}"',
            f'unit = "{row.unit}"',
            f"published = {row.published!r}",
            f"simulated = {row.simulated:.4g}",
            f"error = {row.error:.4f}",
        ]
    return "\n".join(lines) + "\n"


def _show(found: Fit) -> None:
    from rich.console import Console
    from rich.table import Table

    from areal_sim.published.calibration import PARAMETERS

    console = Console()
    table = Table(title="Fitted", title_justify="left")
    table.add_column("number")
    for heading in ("prior", "fitted", "times or divided by"):
        table.add_column(heading, justify="right")
    table.add_column("unit")
    for parameter in PARAMETERS:
        table.add_row(
            parameter.name,
            f"{parameter.prior:.3g}",
            f"{found.values[parameter.name]:.4g}",
            f"{found.errors[parameter.name]:.2f}",
            parameter.unit,
        )
    console.print(table)
    rows = Table(title="What it was fitted to", title_justify="left")
    rows.add_column("row")
    for heading in ("published", "simulated", "error"):
        rows.add_column(heading, justify="right")
    rows.add_column("unit")
    for row in found.residuals:
        rows.add_row(
            row.name,
            f"{row.published:.1f}",
            f"{row.simulated:.1f}",
            f"{100 * row.error:+.1f} %",
            row.unit,
        )
    console.print(rows)
