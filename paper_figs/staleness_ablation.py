"""The staleness ablation, really trained: eta with and without the decoupled objective.

The paper's counterpart is its table 2 (arXiv 2505.24298), on a 1.5B model.
Here a tiny model learns the built-in task on a CPU, with the real SGLang and Megatron-Core, and the
question is the same: what does stale data cost, and how much of that does the decoupled objective
(eq. 5) save? The runs behind it were recorded by

    areal-real sweep configs/sweeps/staleness-ablation.toml --out runs/staleness-ablation

and their results lie in ``paper_figs/data/staleness_ablation.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.drawing import FAINT, SECOND, SERIES, new_figure, save, style

RECORDED = Path(__file__).parent / "data" / "staleness_ablation.jsonl"
PICTURE = Path(__file__).parent / "staleness_ablation.png"

COLOURS = {"decoupled": SERIES, "naive": SECOND}

PAPER_AIME24 = {
    # Table 2, AIME24, of the 1.5B model: eta to (naive, decoupled).
    0: (42.0, 42.0),
    1: (41.8, 42.1),
    2: (40.0, 41.8),
    4: (23.3, 42.2),
    8: (35.7, 41.0),
    16: (35.8, 38.7),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One eta with one objective, over its seeds.

    Attributes:
        halfway: held-out accuracy after half of the steps, by seed.
        accuracy: the same after the last step.
        best: the best of each run's evaluations.
        lag_mean: mean lag over the run, versions, by seed.
        steps: int64 (evaluations,), after which it was evaluated.
        curves: float64 (seeds, evaluations), held-out accuracy.
    """

    halfway: tuple[float, ...]
    accuracy: tuple[float, ...]
    best: tuple[float, ...]
    lag_mean: tuple[float, ...]
    steps: np.ndarray
    curves: np.ndarray


def read(path: Path) -> dict[tuple[int, str], Cell]:
    """Cells by (eta, objective), from a sweep's results.

    Raises:
        ValueError: the file holds no results of this sweep; the message names the line.
    """
    rows: dict[tuple[int, str], list[Mapping[str, Any]]] = defaultdict(list)
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            row = json.loads(line)
            settings = row["settings"]
            rows[int(settings["limits.eta"]), str(settings["real.ppo.objective"])].append(row)
        except (ValueError, KeyError, TypeError) as exc:
            raise ValueError(f"{path}, line {number}: not a result of this sweep ({exc})") from None
    if not rows:
        raise ValueError(f"{path}: empty")
    return {key: _cell(found) for key, found in sorted(rows.items())}


def _cell(rows: Sequence[Mapping[str, Any]]) -> Cell:
    steps = [[x for x, _ in row["held_out"]] for row in rows]
    if any(x != steps[0] for x in steps):
        raise ValueError(f"{rows[0].get('name')}: its seeds were evaluated after different steps")
    return Cell(
        halfway=tuple(_halfway(row["held_out"]) for row in rows),
        accuracy=tuple(row["held_out"][-1][1] for row in rows),
        best=tuple(max(x for _, x in row["held_out"]) for row in rows),
        lag_mean=tuple(statistics.fmean(row["lag_mean"]) for row in rows),
        steps=np.asarray(steps[0]),
        curves=np.asarray([[x for _, x in row["held_out"]] for row in rows], float),
    )


def _halfway(held_out: Sequence[Sequence[float]]) -> float:
    """Accuracy at the evaluation nearest to half of the steps, of two the later one."""
    half = held_out[-1][0] / 2
    return float(min(reversed(held_out), key=lambda row: abs(row[0] - half))[1])


def table(cells: Mapping[tuple[int, str], Cell]) -> str:
    """The table, as text."""
    etas = sorted({eta for eta, _ in cells})
    lines = [
        "held-out accuracy, %, mean (range) over seeds",
        _line(("", "", "after half the steps", "", "after the last step", "", "paper, AIME24", "")),
        _line(("eta", "mean lag", *("naive", "decoupled") * 3)),
    ]
    for eta in etas:
        pair = [cells.get((eta, name)) for name in ("naive", "decoupled")]
        lags = [x for cell in pair if cell is not None for x in cell.lag_mean]
        columns = [_spread(None if cell is None else cell.halfway) for cell in pair]
        columns += [_spread(None if cell is None else cell.accuracy) for cell in pair]
        paper = PAPER_AIME24.get(eta)
        columns += ["-", "-"] if paper is None else [f"{x:.1f}" for x in paper]
        lines.append(_line((str(eta), f"{statistics.fmean(lags):.2f}", *columns)))
    seeds = sorted({len(cell.accuracy) for cell in cells.values()})
    lines.append(f"seeds per cell: {', '.join(map(str, seeds))}")
    return "\n".join(lines)


def _line(columns: Sequence[str]) -> str:
    widths = (4, 10, 21, 16, 20, 16, 14, 11)
    row = "".join(f"{text:>{width}}" for text, width in zip(columns, widths, strict=True))
    return row.rstrip()


def _spread(accuracies: Sequence[float] | None) -> str:
    if accuracies is None:
        return "-"
    values = [100 * x for x in accuracies]
    return f"{statistics.fmean(values):.1f} ({min(values):.0f}-{max(values):.0f})"


def draw(cells: Mapping[tuple[int, str], Cell], path: Path) -> Path:
    """Draw the curves: one panel per eta, accuracy by step, a line per seed and their mean."""
    etas = sorted({eta for eta, _ in cells})
    with style():
        figure = new_figure(3.1 * len(etas), 3.2)
        panels = figure.subplots(1, len(etas), sharey=True, squeeze=False)[0]
        for axes, eta in zip(panels, etas, strict=True):
            for name, colour in COLOURS.items():
                cell = cells.get((eta, name))
                if cell is None:
                    continue
                steps, curves = cell.steps, cell.curves
                axes.plot(steps, curves.T, color=colour, alpha=0.3, linewidth=0.8)
                axes.plot(steps, curves.mean(axis=0), color=colour, linewidth=1.8, label=name)
            axes.set_title(f"eta = {eta}")
            axes.set_xlabel("training step")
            axes.set_ylim(0, 1.02)
            axes.axhline(1.0, color=FAINT, linewidth=0.5)
        panels[0].set_ylabel("held-out accuracy")
        panels[-1].legend(loc="lower right")
        figure.tight_layout()
        return save(figure, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and draw the picture from recorded runs."""
    parser = argparse.ArgumentParser(
        prog="python -m paper_figs.staleness_ablation", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--results", type=Path, default=RECORDED, help="results.jsonl of a sweep")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="where to draw it")
    args = parser.parse_args(arguments)
    try:
        cells = read(args.results)
    except (OSError, ValueError) as exc:
        print(f"staleness_ablation: {exc}", file=sys.stderr)
        return 2
    print(table(cells))
    print(f"picture: {draw(cells, args.picture)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
