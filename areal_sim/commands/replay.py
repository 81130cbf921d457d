"""``areal-sim replay``: feed a journal through its scheduler again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "replay",
        help="check that a journal replays to identical decisions",
        description="Feed a journal's events, of a simulated or a real run, through the "
        "scheduler that its header names and compare every command. Exit code 1 and the first "
        "differing entry if they are not identical.",
    )
    parser.add_argument("journal", type=Path, metavar="JOURNAL", help="or its run directory")
    parser.add_argument(
        "--scheduler", metavar="MODULE:CLASS", help="another scheduler than the recorded one"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="options",
        metavar="OPTION=VALUE",
        help="change an option of the scheduler; may be repeated",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry it out."""
    import tomllib

    from analysis.rundir import JOURNAL
    from areal_sched.errors import ConfigError, JournalError, ReplayDiverged
    from areal_sched.journal import JournalReader
    from areal_sched.limits import Limits
    from areal_sched.load import load
    from areal_sched.replay import replay

    path = args.journal / JOURNAL if args.journal.is_dir() else args.journal
    reader = JournalReader(path)
    try:
        limits = Limits(**reader.header["limits"])
        options = {**reader.header["options"]}
        scheduler = args.scheduler or reader.header["scheduler"]
        if args.scheduler is None:
            load(str(scheduler), limits, options)
    except KeyError as exc:
        raise JournalError(f"{path}: the header has no {exc}") from None
    except (TypeError, ValueError) as exc:
        raise JournalError(f"{path}: the header is wrong: {exc}") from None
    for option in args.options:
        name, equals, value = option.partition("=")
        if not equals:
            raise ConfigError(f"--set {option}: expected OPTION=VALUE")
        try:
            options[name] = tomllib.loads(f"x = {value}")["x"]
        except tomllib.TOMLDecodeError:
            options[name] = value
    try:
        count = replay(reader.entries(), load(scheduler, limits, options), limits)
    except ReplayDiverged as exc:
        print(f"{path}: {exc}")
        return 1
    cut = " (the journal breaks off there)" if reader.truncated else ""
    print(f"{path}: {count:,} entries replayed through {scheduler}, all commands identical{cut}")
    return 0
