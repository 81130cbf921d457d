"""Predicted against measured, from the journals that are kept: ``make validate``.

Costs are fitted to a run of each of three cases. Every other case is simulated without anything of
its own but its configuration (and, where that is what differs, the lengths of its answers).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from validation.cases import HERE, read_cases
from validation.predict import fitted, outcomes
from validation.report import picture, report, to_json


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; with --write also keep it."""
    parser = argparse.ArgumentParser(
        prog="python -m validation", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--case", action="append", help="only this case; may be repeated")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument(
        "--write", type=Path, nargs="?", const=HERE, help="keep text, JSON and picture in a folder"
    )
    args = parser.parse_args(arguments)
    cases = read_cases()
    if unknown := set(args.case or ()) - {case.name for case in cases}:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    calibration = fitted(cases)
    wanted = [case for case in cases if args.case is None or case.name in args.case]
    found = outcomes(wanted, calibration, lambda name: print(name, file=sys.stderr))
    text = report(found)
    print(json.dumps(to_json(found), indent=1) if args.json else text)
    if args.write is not None:
        args.write.mkdir(parents=True, exist_ok=True)
        (args.write / "results.txt").write_text(text + "\n", encoding="utf-8")
        (args.write / "results.json").write_text(json.dumps(to_json(found), indent=1) + "\n")
        picture(found, args.write / "results.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
