"""``areal-sim calibrate``: fit costs and workload to the journal of a real run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from analysis.calibration.calibrate import Calibration


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "calibrate",
        help="fit costs and workload to the journal of a real run",
        description="Fit the coefficients of the cost model to journals of areal-real: engine "
        "steps, trainer phases, weight loads, rewards and what lies between scheduler and "
        "engines. Says how good each fit is and which coefficients the journals do not "
        'determine. The file is read by sim.cost.provider = "fitted"; with --config also a '
        "configuration of the same run and its response lengths are written: simulate it, and "
        "compare with the real run.",
    )
    parser.add_argument(
        "journals", type=Path, nargs="+", metavar="RUN", help="journals, or run directories"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="COSTS.toml",
        help="where the coefficients go; replaced if it exists",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="SIM.toml",
        help="also write a configuration that simulates the (first) run, and its lengths beside "
        "it; replaced if they exist",
    )
    parser.add_argument(
        "--steps",
        metavar="FIRST:LAST",
        help="training steps to fit to, counted from 1; by default all but the start-up",
    )
    parser.add_argument("--json", action="store_true", help="print the fits as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry it out."""
    import json
    import os
    import sys

    from analysis.calibration.calibrate import calibrate
    from analysis.rundir import JOURNAL
    from areal_sim.commands.resimulation import LENGTHS, config_of, costs_of

    _check_paths(args)
    paths = [path / JOURNAL if path.is_dir() else path for path in args.journals]
    first, last = _steps(args.steps)
    calibration = calibrate(paths, first_step=first, last_step=last)
    for note in calibration.notes:
        print(f"areal-sim: note: {note}", file=sys.stderr)
    texts = {args.out: costs_of(calibration).to_toml()}
    lengths = None
    if args.config is not None:
        lengths = args.config.with_name(f"{args.config.stem}-{LENGTHS}")
        texts[args.config] = config_of(
            calibration.header,
            calibration.room,
            calibration,
            costs=os.path.relpath(args.out, args.config.parent),
            lengths=lengths.name,
            steps=calibration.header["run"]["steps"],
        )
    _write(texts, lengths, calibration)
    if args.json:
        print(json.dumps(to_json(calibration), indent=2, allow_nan=False))
        return 0
    from rich.console import Console

    console = Console(highlight=False)
    console.print(table(calibration))
    for line in remarks(calibration):
        console.print(line, soft_wrap=True)
    console.print(f"written to {args.out}", soft_wrap=True)
    if args.config is not None:
        console.print(f"simulate it: areal-sim run {args.config}", soft_wrap=True)
    return 0


def _steps(text: str | None) -> tuple[int | None, int | None]:
    from areal_sched.errors import ConfigError

    if text is None:
        return None, None
    first, colon, last = text.partition(":")
    try:
        steps = (int(first) if first else None, int(last) if last else None)
    except ValueError:
        steps, colon = (0, 0), ""
    wrong = any(x is not None and x < 1 for x in steps)
    if not colon or wrong or (None not in steps and steps[0] > steps[1]):  # type: ignore[operator]
        raise ConfigError(f"--steps {text}: expected FIRST:LAST, such as 4:20, 4: or :20")
    return steps


def _check_paths(args: argparse.Namespace) -> None:
    """Refuse what could not be written, before anything is read."""
    from areal_sched.errors import ConfigError

    for name in ("out", "config"):
        path = getattr(args, name)
        if path is None:
            continue
        if path.is_dir() or not path.parent.is_dir():
            what = "is a folder" if path.is_dir() else "its folder does not exist"
            raise ConfigError(f"--{name} {path}: {what}")
    if args.config is not None and args.config.resolve() == args.out.resolve():
        raise ConfigError(f"--config {args.config}: is the file of --out, too")


def _write(texts: dict[Path, str], lengths: Path | None, calibration: Calibration) -> None:
    """Write the files, all of them or none."""
    from areal_sim.commands.files import replace_together, text_writer
    from traces.schema import write_workload

    writers = {path: text_writer(text) for path, text in texts.items()}
    if lengths is not None:
        writers[lengths] = lambda path: write_workload(calibration.lengths, path)
    replace_together(writers)


def to_json(calibration: Calibration) -> dict[str, Any]:
    """The fits, for programs."""
    import dataclasses

    return {
        "steps": calibration.steps,
        "slowdown": calibration.engine.slowdown,
        "fits": [_finite(dataclasses.asdict(found)) for found in calibration.fits()],
        "client": dataclasses.asdict(calibration.client),
        "rewards": calibration.rewards and dataclasses.asdict(calibration.rewards),
        "responses": len(calibration.lengths),
    }


def _finite(value: Any) -> Any:
    """JSON knows neither infinity nor "not a number": None for both."""
    import math

    if isinstance(value, dict):
        return {key: _finite(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(calibration: Calibration) -> Table:
    """The coefficients, for people."""
    from rich.table import Table

    title = f"fitted to {calibration.steps} training steps of {', '.join(calibration.names)}"
    shown = Table(title=title, title_justify="left")
    for heading in ("phase", "samples", "error", "coefficient", "microseconds", "+-"):
        left = heading in ("phase", "coefficient")
        shown.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for found in calibration.fits():
        head = (found.phase, f"{found.samples:,}", f"{found.median_error:.1%}")
        for coefficient in found.coefficients:
            sure = f"{1e6 * coefficient.standard_error:.3g}" if coefficient.determined else "?"
            value = f"{1e6 * coefficient.value:.4g}"
            shown.add_row(*head, coefficient.name.removesuffix("_s"), value, sure)
            head = ("", "", "")
    return shown


def remarks(calibration: Calibration) -> list[str]:
    """What else was found, and what was not."""
    from traces.fit import variance_components

    lines = [f"a trainer at work slows a server down by {calibration.engine.slowdown:.0%}"]
    client = calibration.client
    times = {
        "request to engine": client.dispatch_s,
        "from one to the next": client.dispatch_per_rollout_s,
        "answer back": client.report_s,
        "an interruption takes": client.stop_s,
        "to the trainer": client.train_s,
        "and back": client.trained_s,
    }
    told = ", ".join(f"{x} {1e3 * y:.1f} ms" for x, y in times.items() if y is not None)
    lines.append(f"between scheduler and engines: {told or 'nothing could be measured'}")
    if calibration.rewards is not None:
        rewards = calibration.rewards
        lines.append(f"a reward takes {1e3 * rewards.mean_s:.1f} ms ({rewards.samples:,} samples)")
    try:
        parts = variance_components(calibration.lengths)
        lines.append(
            f"{len(calibration.lengths):,} responses: log tokens {parts.mu:.2f}, standard deviation"
            f" {parts.between**0.5:.2f} between and {parts.within**0.5:.2f} within prompts"
        )
    except ValueError as exc:
        lines.append(f"{len(calibration.lengths):,} responses ({exc})")
    unsure = [
        f"{found.phase}: {c.name}"
        for found in calibration.fits()
        for c in found.coefficients
        if not c.determined
    ]
    if unsure:
        lines.append("? not determined by these journals: " + "; ".join(unsure))
    return lines
