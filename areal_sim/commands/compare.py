"""``areal-sim compare``: two runs side by side."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from areal_sim.commands.journals import read_noting
from areal_sim.commands.run import add_overrides, overrides_of
from areal_sim.commands.show import progress_bar

if TYPE_CHECKING:
    from analysis.compare import Comparison
    from analysis.recorder import RunRecorder

_KINDS = "a configuration, a run directory or a journal"
_ENDS = (".toml", ".gz", ".jsonl")
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class _Run:
    """One side. ``recorder``: None where there is no journal. ``notes``: what to tell of it."""

    summary: dict[str, Any]
    recorder: RunRecorder | None
    notes: tuple[str, ...] = ()


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "compare",
        help="two runs side by side",
        description="Compare two runs, simulated or real; errors say how far B is off A. Each is a "
        "run directory, a journal, or a configuration that is simulated first (with --set and "
        "--seed, given to both). Figures of the steady state leave each run's start-up out.",
    )
    parser.add_argument("a", type=Path, metavar="A", help=_KINDS)
    parser.add_argument("b", type=Path, metavar="B", help=_KINDS)
    add_overrides(parser)
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument(
        "--picture",
        type=Path,
        metavar="PNG",
        help="draw both timelines one above the other, and distributions below",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="leave comparison.json and comparison.png there"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry it out."""
    from analysis.rundir import check_out_dir

    if args.out is not None:
        check_out_dir(args.out)
    overrides = overrides_of(args)
    a, b = (_load(path, overrides, args) for path in (args.a, args.b))
    labels = labels_of(args.a, args.b)
    comparison = _compare(a, b, labels)
    for note in comparison.notes:
        print(f"areal-sim: note: {note}", file=sys.stderr)
    pictures = [args.picture] if args.picture is not None else []
    if args.out is not None:
        pictures.append(args.out / "comparison.png")
    for picture in pictures:
        _draw(a, b, labels, comparison.notes, picture)
    if args.out is not None:
        text = json.dumps(comparison.to_json(), indent=2)
        (args.out / "comparison.json").write_text(text + "\n")
    if args.json:
        json.dump(comparison.to_json(), sys.stdout, indent=2)
        print()
        return 0
    from rich.console import Console

    Console().print(comparison.table())
    for picture in pictures:
        print(f"the picture is {picture}")
    return 0


def labels_of(a: Path, b: Path) -> tuple[str, str]:
    """What to call two runs: the shortest ends of their paths that differ."""
    from analysis.rundir import JOURNAL

    parts = []
    for path in (a, b):
        named = (path.parent if path.name == JOURNAL else path).resolve()
        for end in _ENDS:
            if named.name != end:
                named = named.with_name(named.name.removesuffix(end))
        parts.append(named)
    if parts[0] == parts[1]:
        return "A", "B"
    count = 1
    while parts[0].parts[-count:] == parts[1].parts[-count:]:
        count += 1
    first, second = ("/".join(x.parts[-count:]) for x in parts)
    return first, second


def _compare(a: _Run, b: _Run, labels: tuple[str, str]) -> Comparison:
    from analysis.compare import compare
    from analysis.phases import phases

    told = [None if x.recorder is None else phases(x.recorder) for x in (a, b)]
    return compare(a.summary, b.summary, *told, labels=labels, notes=(*a.notes, *b.notes))


def _draw(a: _Run, b: _Run, labels: tuple[str, str], notes: tuple[str, ...], picture: Path) -> None:
    from analysis.compare_picture import draw_comparison

    assert a.recorder is not None
    assert b.recorder is not None
    draw_comparison(a.recorder, b.recorder, picture, labels=labels, notes=notes)


def _load(path: Path, overrides: list[str], args: argparse.Namespace) -> _Run:
    from analysis.rundir import JOURNAL, SUMMARY, read_summary

    if path.is_dir():
        journal = path / JOURNAL
        draws = args.picture is not None or args.out is not None
        if journal.exists() or draws:
            before = read_summary(path) if (path / SUMMARY).exists() or not journal.exists() else {}
            return _read(journal, float(before.get("wall_s") or 0.0))
        return _Run(read_summary(path), None, (f"{path}: no journal, so no phases are known",))
    if path.name.endswith(".gz") or _is_gzip(path):
        return _read(path, 0.0)
    return _simulate(path, overrides, args)


def _is_gzip(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(2) == _GZIP
    except OSError:
        return False


def _read(journal: Path, wall_s: float) -> _Run:
    from analysis.recorder import journal_sha256
    from analysis.summary import summarise

    recorder, notes = read_noting(journal)
    summary = summarise(recorder, recorder.end_ns, wall_s, journal_sha256(journal))
    return _Run(summary, recorder, notes)


def _simulate(path: Path, overrides: list[str], args: argparse.Namespace) -> _Run:
    from areal_sim.config import load_config
    from areal_sim.rundir import simulate

    config = load_config(path, overrides)
    with progress_bar(path.stem, quiet=args.json) as progress:
        outcome = simulate(config, name=path.stem, progress=progress)
    if outcome.interrupted:
        raise KeyboardInterrupt
    return _Run(outcome.summary, outcome.recorder)
