"""``areal-sim replay``: feed a journal through its scheduler again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from areal_sched.journal import JournalReader
    from areal_sched.limits import Limits

_CLASS = "class"


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "replay",
        help="check that a journal replays to identical decisions",
        description="Feed a journal's events, of a simulated or a real run, through the "
        "scheduler that its header names and compare every command. Exit code 1 and the first "
        "differing entry if they are not identical, 2 if the journal cannot be read to its end.",
    )
    parser.add_argument("journal", type=Path, metavar="JOURNAL", help="or its run directory")
    parser.add_argument(
        "--scheduler", metavar="MODULE:CLASS", help="another scheduler than the recorded one"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="changes",
        metavar="KEY=VALUE",
        help="change a limit or an option of the scheduler, as limits.eta=1 or "
        "scheduler.unit=group (unit=group is the same); may be repeated",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry it out."""
    from analysis.rundir import JOURNAL
    from areal_sched.errors import JournalError, ReplayDiverged
    from areal_sched.journal import JournalReader
    from areal_sched.load import built_in, load
    from areal_sched.replay import replay

    path = args.journal / JOURNAL if args.journal.is_dir() else args.journal
    reader = JournalReader(path)
    limits, options, recorded = _recorded(reader)
    bounds, changes = _changes(args.changes)
    other = changes.pop(_CLASS, None) if args.scheduler is None else args.scheduler
    if other is None:
        scheduler = recorded
        _check(reader, scheduler, limits, options)
    else:
        scheduler = str(other)
        if built_in().get(scheduler, scheduler) != built_in().get(recorded, recorded):
            options = {}
    if bounds:
        limits = _limits({**reader.header["limits"], **bounds})
    built = load(scheduler, limits, {**options, **changes})
    try:
        count = replay(reader.entries(), built, limits)
    except ReplayDiverged as exc:
        print(f"{path}: {exc}")
        return 1
    print(f"{path}: {count:,} entries replayed through {scheduler}, all commands identical")
    note = reader.note()
    if note is not None:
        raise JournalError(note)
    return 0


def _recorded(reader: JournalReader) -> tuple[Limits, dict[str, Any], str]:
    """Limits, options and scheduler of the header."""
    from areal_sched.errors import JournalError
    from areal_sched.limits import Limits

    try:
        limits = Limits(**reader.header["limits"])
        options = {**reader.header["options"]}
        return limits, options, str(reader.header["scheduler"])
    except KeyError as exc:
        raise JournalError(f"{reader.path}: the header has no {exc}; {_rest(reader)}") from None
    except (TypeError, ValueError) as exc:
        wrong = f"{reader.path}: the header is wrong: {exc}; {_rest(reader)}"
        raise JournalError(wrong) from None


def _check(reader: JournalReader, scheduler: str, limits: Limits, options: dict[str, Any]) -> None:
    """Refuse a journal whose scheduler this program does not have."""
    from areal_sched.errors import JournalError
    from areal_sched.load import load

    try:
        load(scheduler, limits, options)
    except (TypeError, ValueError) as exc:
        raise JournalError(
            f"{reader.path}: the header names a scheduler that cannot be built here: {exc}; "
            f"{_rest(reader)}"
        ) from None


def _rest(reader: JournalReader) -> str:
    """What can be read of a journal that cannot be replayed."""
    from areal_sched.errors import JournalError

    try:
        for _ in reader:
            pass
    except JournalError:
        pass
    return f"what can be read: {reader.read}"


def _changes(texts: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Changed limits, and changed options of the scheduler."""
    import tomllib

    from areal_sched.errors import ConfigError

    limits: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for text in texts:
        key, equals, written = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: expected OPTION=VALUE")
        try:
            value = tomllib.loads(f"x = {written}")["x"]
        except tomllib.TOMLDecodeError:
            value = written
        table, dot, name = key.strip().rpartition(".")
        if not dot or table == "scheduler":
            options[name] = value
        elif table == "limits":
            limits[name] = None if value == float("inf") else value
        else:
            raise ConfigError(
                f"--set {text}: replay changes limits.* and scheduler.* alone; for anything else "
                "simulate"
            )
    return limits, options


def _limits(values: dict[str, Any]) -> Limits:
    import dataclasses

    from areal_sched.errors import ConfigError, nearest
    from areal_sched.limits import Limits

    known = [field.name for field in dataclasses.fields(Limits)]
    for name in values:
        if name not in known:
            raise ConfigError(f"--set limits.{name}: no such limit{nearest(name, known)}")
    return Limits(**values)
