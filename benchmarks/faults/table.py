"""The result of the suite: one row per fault, one per run, and the totals."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.faults.books import Books

OK = "ok"


@dataclass(slots=True, kw_only=True)
class Row:
    """One fault.

    Attributes:
        run: the training it happened to.
        what: the fault.
        faults: injected with it; a server killed twice in a row is two.
        step: training steps done when it was injected.
        noticed: how the run noticed, in its own words where it has some.
        seconds: from the injection until the next training step was done, and whatever had
            stopped was back.
        lost: rollouts that failed meanwhile and were replaced.
        resumed: rollouts that a lost server or trainer gave back, and that went on.
        verdict: ``ok``, or what is wrong.
    """

    run: str
    what: str
    faults: int = 1
    step: int | None = None
    noticed: str = ""
    seconds: float | None = None
    lost: int = 0
    resumed: int = 0
    verdict: str = OK


@dataclass(slots=True, kw_only=True)
class RunRow:
    """One training, after all its faults."""

    run: str
    seconds: float = 0.0
    resumptions: int = 0
    books: Books = field(default_factory=Books)
    verdict: str = OK
    skipped: str = ""


@dataclass(slots=True)
class Results:
    """All of it."""

    rows: list[Row] = field(default_factory=list)
    runs: list[RunRow] = field(default_factory=list)

    @property
    def injected(self) -> int:
        """Faults that were injected."""
        return sum(row.faults for row in self.rows if row.step is not None)

    @property
    def sound(self) -> bool:
        """Whether everything is as it should be."""
        verdicts = [x.verdict for x in self.rows] + [x.verdict for x in self.runs]
        return all(verdict == OK for verdict in verdicts)

    @property
    def totals(self) -> dict[str, int]:
        """Over all runs."""
        books = [run.books for run in self.runs]
        return {
            "faults injected": self.injected,
            "faults passed": sum(row.faults for row in self.rows if row.verdict == OK),
            "trajectories started": sum(x.started for x in books),
            "trained": sum(x.trained for x in books),
            "dropped": sum(x.dropped for x in books),
            "failed": sum(x.failed for x in books),
            "in flight at the end": sum(x.in_flight for x in books),
            "lost uncounted": sum(len(x.uncounted) for x in books),
            "trained twice": sum(len(x.twice) for x in books),
            "journals that replay": sum(x.entries > 0 and x.replayed == x.entries for x in books),
            "entries replayed": sum(x.replayed for x in books),
        }

    def markdown(self) -> str:
        """As tables."""
        lines = _table(
            ["fault", "at step", "noticed", "s until work went on", "lost / resumed", "verdict"],
            [
                [
                    row.what + (f" ({row.faults} faults)" if row.faults > 1 else ""),
                    "" if row.step is None else str(row.step),
                    row.noticed,
                    "" if row.seconds is None else f"{row.seconds:.1f}",
                    f"{row.lost} / {row.resumed}",
                    row.verdict,
                ]
                for row in self.rows
            ],
        )
        lines += ["", "Trajectories, after all faults of each run:", ""]
        heads = ["run", "steps", "started", "trained", "dropped", "failed", "in flight"]
        lines += _table(
            [*heads, "uncounted", "trained twice", "entries replayed", "resumed", "min", "verdict"],
            [
                [
                    run.run,
                    *(
                        str(x)
                        for x in (
                            run.books.steps,
                            run.books.started,
                            run.books.trained,
                            run.books.dropped,
                            run.books.failed,
                            run.books.in_flight,
                            len(run.books.uncounted),
                            len(run.books.twice),
                            f"{run.books.replayed} of {run.books.entries}",
                            run.resumptions,
                        )
                    ),
                    f"{run.seconds / 60:.1f}",
                    f"skipped: {run.skipped}" if run.skipped else run.verdict,
                ]
                for run in self.runs
            ],
        )
        lines += ["", *(f"- {name}: {value}" for name, value in self.totals.items())]
        return "\n".join(lines) + "\n"

    def write(self, folder: Path) -> None:
        """Write ``faults.json`` and ``faults.md``."""
        folder.mkdir(parents=True, exist_ok=True)
        document = {
            "totals": self.totals,
            "faults": [dataclasses.asdict(row) for row in self.rows],
            "runs": [dataclasses.asdict(run) for run in self.runs],
        }
        (folder / "faults.json").write_text(json.dumps(document, indent=2) + "\n")
        (folder / "faults.md").write_text(self.markdown())


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = (" ".join(cell.split()).replace("|", "\\|") for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return lines
