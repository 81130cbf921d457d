"""The command."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from areal_sched.errors import ArealError
from benchmarks import weight_transfer
from benchmarks.weight_transfer.model import Statistic, cells, markdown, remarks, table
from benchmarks.weight_transfer.updates import DataError, Update, load, save

SIZES = ("1M", "8M", "26M", "72M", "199M")
FITTED = ("1M", "26M", "199M")
"""The model is fitted to every second size; the others are predicted."""


STATISTICS: dict[str, Statistic] = {"median": statistics.median, "least": min}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or read what was measured, and print the table.

    Returns:
        0, or 2 where something is wrong with the arguments or a part did not come up.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.weight_transfer",
        description=weight_transfer.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", default=",".join(SIZES), help="of the models, by comma")
    parser.add_argument("--servers", type=int, default=2, help="most servers (1 is measured too)")
    parser.add_argument("--repetitions", type=int, default=5, help="updates of each kind")
    parser.add_argument("--mode", choices=("in_place", "interrupt", "drain"), default="in_place")
    parser.add_argument("--bucket-bytes", type=int, default=2**24)
    parser.add_argument("--out", type=Path, help="keep the measurements in this file")
    parser.add_argument("--from", dest="source", type=Path, help="measure nothing, read this file")
    parser.add_argument(
        "--statistic",
        choices=STATISTICS,
        default="median",
        help="of the repetitions, what the model is fitted to and held against",
    )
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    args = parser.parse_args(arguments)
    try:
        if args.source is not None:
            updates, about = load(args.source)
        else:
            updates, about = _measured(args)
            if args.out is not None:
                save(args.out, updates, about)
        _print(updates, about, args.statistic, as_markdown=args.markdown)
    except (ArealError, OSError) as error:
        print(f"weight_transfer: {error}", file=sys.stderr)
        return 2
    return 0


def _print(
    updates: list[Update], about: dict[str, Any], statistic: str, *, as_markdown: bool
) -> None:
    from rich.console import Console

    sizes = about["sizes"]  # name to bytes
    fitted = {sizes[name] for name in sizes if name in FITTED} or set(sizes.values())
    shown = cells(updates, fitted, STATISTICS[statistic])
    console = Console(highlight=False, width=200)
    title = f"{about['mode']}, buckets of {about['bucket_bytes'] / 2**20:g} MiB, ms"
    if as_markdown:
        print(markdown(shown))
    else:
        console.print(table(shown, title))
    for line in remarks(shown):
        console.print(line, soft_wrap=True)


def _measured(args: argparse.Namespace) -> tuple[list[Update], dict[str, Any]]:
    from benchmarks.weight_transfer.lab import SHAPES

    names = args.sizes.split(",")
    for name in names:
        if name not in SHAPES:
            raise DataError(f"--sizes {name}: known: {', '.join(SHAPES)}")
    for option in ("servers", "repetitions", "bucket_bytes"):
        if getattr(args, option) < 1:
            shown = option.replace("_", "-")
            raise DataError(f"--{shown} {getattr(args, option)}: expected at least 1")
    updates: list[Update] = []
    sizes = {}
    for name in names:
        found = asyncio.run(_of_size(name, args))
        sizes[name] = found[0].size_bytes
        updates += found
    about = {"mode": args.mode, "bucket_bytes": args.bucket_bytes, "sizes": sizes}
    return updates, about


async def _of_size(name: str, args: argparse.Namespace) -> list[Update]:
    from benchmarks.weight_transfer.drive import Drive
    from benchmarks.weight_transfer.lab import SHAPES, Lab

    updates: list[Update] = []
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), args.servers, args.bucket_bytes)
        try:
            await lab.start(SHAPES[name])
            kinds: list[tuple[int, int | None]] = [(1, None)]
            if args.servers > 1:
                kinds = [(args.servers, None), (args.servers, 1), (1, None)]
            for method in ("disk", "collective"):
                lab.method = method
                for servers, at_once in kinds:
                    drive = Drive(lab, servers, at_once, args.mode)
                    updates += await drive.updates(args.repetitions)
                    print(
                        f"{name}: {method}, {servers} servers, {at_once or 'all'} at a time:"
                        f" {1e3 * min(x.total_s for x in updates[-args.repetitions :]):.0f} ms",
                        file=sys.stderr,
                    )
        finally:
            await lab.stop()
    return updates


if __name__ == "__main__":
    raise SystemExit(main())
