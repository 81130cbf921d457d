"""``python -m benchmarks.faults``: injects faults into real trainings, shows what became of them.

    python -m benchmarks.faults --out runs/faults
    python -m benchmarks.faults --only servers --only disk

Every training is ``areal-real train configs/real/tiny-cpu.toml`` with a small batch, on this
machine. Exit status 0 if all is well, 1 if not, 2 for bad input, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults.bench import Injector, Scenario
from benchmarks.faults.scenarios import SCENARIOS
from benchmarks.faults.table import Results


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    top.formatter_class = argparse.RawDescriptionHelpFormatter
    top.add_argument("--out", type=Path, metavar="DIR", help="write faults.json and faults.md")
    top.add_argument(
        "--only",
        action="append",
        choices=[scenario.name for scenario in SCENARIOS],
        metavar="NAME",
        help=f"of {', '.join(scenario.name for scenario in SCENARIOS)}; may be given again",
    )
    top.add_argument("--keep", action="store_true", help="leave the run directories there")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite."""
    args = parser().parse_args(arguments)
    chosen = [x for x in SCENARIOS if args.only is None or x.name in args.only]
    results = Results()
    # However it is told to end, and from wherever it was started: no training goes on without it.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    stopped = False
    for number, scenario in enumerate(chosen, start=1):
        try:
            _one(scenario, results, f"[{number}/{len(chosen)} {scenario.name}]", keep=args.keep)
        except KeyboardInterrupt:
            stopped = True
            break
        finally:
            if args.out is not None:
                results.write(args.out)
    print(results.markdown())
    if stopped:
        print("interrupted", file=sys.stderr)
        return 130
    return 0 if results.sound else 1


def _one(scenario: Scenario, results: Results, label: str, *, keep: bool) -> None:
    begun_s = time.monotonic()

    def tell(text: str) -> None:
        print(f"{label} {time.monotonic() - begun_s:5.0f} s  {text}", file=sys.stderr, flush=True)

    injector = Injector(scenario, tell)
    try:
        injector.go(keep=keep)
    finally:
        results.rows += injector.rows
        results.runs.append(injector.run)


if __name__ == "__main__":
    sys.exit(main())
