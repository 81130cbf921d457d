"""Record the real runs: ``python -m validation.record``.

Run after run, on this machine, with nothing else running. Journals that are there are kept, so it
can be stopped and goes on where it was. All first runs come before all second ones: what the
machine does in the course of an hour is then in every case alike.
"""

from __future__ import annotations

import argparse
import gzip
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from areal_sched.config.options import toml_value
from areal_sched.journal import text_of
from validation.cases import BASE, FITTED, JOURNALS, Case, read_cases

ENGINE_STEPS = '["engine_span",'


def main(arguments: Sequence[str] | None = None) -> int:
    """Record what is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m validation.record", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--case", action="append", help="only this case; may be repeated")
    args = parser.parse_args(arguments)
    cases = read_cases()
    if unknown := set(args.case or ()) - {case.name for case in cases}:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    wanted = [
        (case, repeat)
        for repeat in range(1, max(case.repeats for case in cases) + 1)
        for case in cases
        if args.case is None or case.name in args.case
    ]
    missing = [(case, repeat) for case, repeat in wanted if not case.journal(repeat).exists()]
    JOURNALS.mkdir(exist_ok=True)
    for number, (case, repeat) in enumerate(missing, start=1):
        print(f"{number} of {len(missing)}: {case.name}, run {repeat}", flush=True)
        record(case, repeat)
    return 0


def record(case: Case, repeat: int) -> None:
    """Carry out one run and keep its journal.

    Raises:
        subprocess.CalledProcessError: it failed; what it printed came through.
    """
    settings = {**case.settings, "real.seed": repeat}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / case.name
        subprocess.run(
            [
                *(sys.executable, "-m", "areal_real.cli", "train", str(BASE), "--out", str(out)),
                *(x for key, value in settings.items() for x in ("--set", _set(key, value))),
                "--json",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        case.journal(repeat).parent.mkdir(exist_ok=True)
        part = case.journal(repeat).with_suffix(".part")
        part.write_bytes(compact(out / "journal.jsonl.gz", steps=case.change == FITTED))
        part.replace(case.journal(repeat))


def compact(path: Path, *, steps: bool) -> bytes:
    """A journal as it is kept.

    A running journal is flushed line by line, which makes it several times as large as it needs to
    be. What engines did in each step is half of the rest, and only fits need it.

    Args:
        path: the journal.
        steps: keep what engines did in each step.
    """
    lines = text_of(path).splitlines(keepends=True)
    kept = [line for line in lines if steps or ENGINE_STEPS not in line[:64]]
    return gzip.compress("".join(kept).encode(), compresslevel=9, mtime=0)


def _set(key: str, value: object) -> str:
    return f"{key}={toml_value(value)}"


if __name__ == "__main__":
    sys.exit(main())
