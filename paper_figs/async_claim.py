"""The asynchronous claim, really trained: AReaL against synchronous on one machine, same seeds.

The paper's counterpart is its table 1 (arXiv 2505.24298): 41.0 h against 14.8 h for the 1.5B model
on 128 GPUs. Here a tiny model learns the built-in task on 2 CPU cores, with the real SGLang and
Megatron-Core; the trainer is several times faster than the one server, so that there is little to
overlap, and the table says how much of it was. The runs behind it were recorded by

    areal-real sweep configs/sweeps/async-claim.toml --out runs/async-claim

and their results lie in ``paper_figs/data/async_claim.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "data" / "async_claim.jsonl"
GOAL = 0.9
ORDER = ("synchronous", "areal")


def read(path: Path) -> dict[str, list[Mapping[str, Any]]]:
    """Results by schedule.

    Raises:
        ValueError: the file holds no results of this sweep; the message names the line.
    """
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            row = json.loads(line)
            found[str(row["settings"]["schedule"])].append(row)
        except (ValueError, KeyError, TypeError) as exc:
            raise ValueError(f"{path}, line {number}: not a result of this sweep ({exc})") from None
    if not found:
        raise ValueError(f"{path}: empty")
    return dict(found)


def seconds_to_goal(row: Mapping[str, Any]) -> float | None:
    """When the first evaluation at or above the goal's weights were made; None if none was."""
    for step, accuracy in row["held_out"]:
        if accuracy >= GOAL:
            return float(row["time_s"][step - 1]) if step else 0.0
    return None


def table(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The table, as text: one line per seed and schedule, then the means."""
    form = "{:>6}  {:<12} {:>8} {:>8} {:>9} {:>11} {:>12} {:>11}"
    lines = [
        form.format(
            "seed", "schedule", "before", "after", "minutes", "s to 90 %", "idle: server", "trainer"
        )
    ]
    means: dict[str, list[float]] = {}
    for schedule in (x for x in ORDER if x in found):
        columns: list[list[float]] = []
        for row in found[schedule]:
            values = [
                row["held_out"][0][1],
                row["held_out"][-1][1],
                row["minutes"],
                seconds_to_goal(row),
                row["idle"]["generation"],
                row["idle"]["training"],
            ]
            columns.append([float("nan") if x is None else float(x) for x in values])
            seed = row["settings"]["real.seed"]
            lines.append(form.format(seed, schedule, *_texts(columns[-1])))
        means[schedule] = [statistics.fmean(column) for column in zip(*columns, strict=True)]
    lines += [form.format("mean", name, *_texts(values)) for name, values in means.items()]
    if len(means) == len(ORDER):
        slow, fast = means["synchronous"], means["areal"]
        lines.append(
            f"AReaL is {slow[2] / fast[2]:.2f}x as fast over the run and"
            f" {slow[3] / fast[3]:.2f}x as fast to 90 %; the paper's 1.5B run: 2.77x."
        )
    return "\n".join(lines)


def _texts(values: Sequence[float]) -> list[str]:
    before, after, minutes, to_goal, server, trainer = values
    return [
        f"{before:.1%}",
        f"{after:.1%}",
        f"{minutes:.2f}",
        f"{to_goal:.1f}",
        f"{server:.1%}",
        f"{trainer:.1%}",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table from recorded runs."""
    parser = argparse.ArgumentParser(
        prog="python -m paper_figs.async_claim", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--results", type=Path, default=RECORDED, help="results.jsonl of a sweep")
    args = parser.parse_args(arguments)
    try:
        print(table(read(args.results)))
    except (OSError, ValueError) as exc:
        print(f"async_claim: {exc}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
