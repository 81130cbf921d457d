"""Every figure: what it needs, what it makes of it, and that what is expected still comes out."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest

from areal_sim.published.rows import LABELS, SYSTEMS, TABLE_1
from areal_sim.sweep import sweep
from paper_figs import fig6a_micro_batching, figure, table1
from paper_figs.__main__ import MODULES
from paper_figs.figure import EXPECTED, Cell, Made, csv_text, produce, short, table

RECORDED = {"async_claim", "staleness_ablation"}
HELPERS = {"__init__", "__main__", "charts", "figure", "lanes", "variants"}
FOLDER = Path(figure.__file__).parent


def summary(number: int) -> dict[str, Any]:
    """Of a run that never was; each has other values."""
    return {
        "steps": 4,
        "simulated_hours": 1.0 + number / 10,
        "step_time_s": {"mean": 100.0 + number},
        "effective_throughput_tokens_per_s": 1e5 + 1e3 * number,
        "generated_tokens_per_s": 1.1e5 + 1e3 * number,
        "idle_share": {"generation": 0.1, "training": 0.2},
        "lag": {"mean": 1.5, "max": 4},
    }


def test_every_figure_is_listed() -> None:
    files = {path.stem for path in FOLDER.glob("*.py")}
    assert {short(module) for module in MODULES} == files - RECORDED - HELPERS
    assert {path.stem for path in EXPECTED.iterdir()} == {short(module) for module in MODULES}


@pytest.mark.parametrize("module", MODULES, ids=short)
def test_a_figure_from_made_up_runs(module: Any, tmp_path: Path) -> None:
    results = {name: summary(number) for number, name in enumerate(module.runs())}
    made = module.make(results)
    text = table(module.TITLE, made)
    assert text.startswith(f"{module.TITLE}\n")
    figure.write(short(module), made, text, tmp_path)
    for ending in ("txt", "csv", "png", "svg"):
        assert (tmp_path / f"{short(module)}.{ending}").stat().st_size > 100
    rows = list(csv.DictReader(io.StringIO(csv_text(made))))
    assert len(rows) == len(made.cells) > 0
    assert {row["fitted_or_predicted"] for row in rows} <= {"fitted", "predicted", "overlay"}


def test_figure_6a_is_as_expected() -> None:
    made = fig6a_micro_batching.make({})
    assert (
        table(fig6a_micro_batching.TITLE, made)
        == (EXPECTED / "fig6a_micro_batching.txt").read_text()
    )


def test_a_row_of_table_1_is_as_expected(tmp_path: Path) -> None:
    """One simulated cell, from scratch: the expected table is what the model gives."""
    name = "7b sync"
    found = sweep({name: table1.runs()[name]}, cache=tmp_path)
    results = {key: summary(1) for key in table1.runs()} | found
    [cell] = [x for x in table1.make(results).cells if x.name == "7B math, 192 GPUs, sync.AReaL"]
    [line] = [
        x for x in (EXPECTED / "table1.txt").read_text().splitlines() if x.startswith(cell.name)
    ]
    assert f"  {cell.simulated:.1f}  " in line


def test_the_readme_shows_table_1_as_it_comes_out() -> None:
    simulated = {}
    lines = (EXPECTED / "table1.txt").read_text().splitlines()
    for row in TABLE_1:
        for system in SYSTEMS:
            name = f"{row.model.upper()} {row.task}, {row.nodes * 8} GPUs, {LABELS[system]}"
            [line] = [x for x in lines if x.startswith(f"{name} ")]
            simulated[row.model, system] = float(line.removeprefix(name).split()[1])
    readme = (FOLDER.parent / "README.md").read_text()
    block = readme.partition("<!-- numbers: python -m paper_figs.table1 -->\n\n")[2]
    # Hours have one digit in both tables; a speedup of rounded hours may differ in its last digit.
    ours = re.sub(r"\d\.\d\dx \(", "(", table1.markdown(simulated))
    shown = re.sub(r"\d\.\d\dx \(", "(", block.partition("\n<!-- /numbers -->")[0])
    assert ours == shown


@pytest.mark.parametrize("page", ["docs/background/paper.md"])
def test_the_pages_show_what_comes_out(page: str) -> None:
    text = (FOLDER.parent / page).read_text()
    blocks = re.findall(r"<!-- as expected: (\w+) -->\n```\n(.*?)```", text, re.DOTALL)
    assert blocks
    for name, block in blocks:
        assert (EXPECTED / f"{name}.txt").read_text() == block, name


def test_errors_and_verdicts() -> None:
    def cell(simulated: float, **more: Any) -> Cell:
        return Cell(
            name="x", unit="h", published=2.0, simulated=simulated, basis="predicted", **more
        )

    assert cell(2.1).error == pytest.approx(0.05)
    assert cell(2.1).verdict == ""
    assert cell(2.1, within=0.06).verdict == "ok"
    assert cell(1.8, within=0.06).verdict == "miss"
    assert cell(2.1, within=0.06, points=True).error == pytest.approx(0.1)
    assert cell(2.1, within=0.06, points=True).verdict == "miss"
    none = Cell(name="x", unit="h", published=None, simulated=1.0, basis="predicted", within=0.1)
    assert (none.error, none.verdict) == (None, "miss")


class Changed:
    """A figure whose table is another each time."""

    __name__ = "paper_figs.changed"
    TITLE = "changed"

    @staticmethod
    def runs() -> dict[str, Any]:
        return {}

    @staticmethod
    def make(results: Any) -> Made:
        from analysis.drawing import new_figure

        one = Cell(name="x", unit="h", published=1.0, simulated=2.0, basis="predicted")
        return Made(cells=[one], draw=lambda: new_figure(1, 1))


def test_a_changed_model_shows_as_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(figure, "EXPECTED", tmp_path / "expected")
    monkeypatch.setattr(figure, "IMAGES", tmp_path / "images")
    options = ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), "--quiet"]
    module: Any = Changed()
    assert produce([module], options, "x", "") == 1
    told = capsys.readouterr()
    assert "+++ changed: now" in told.out
    assert "not as expected: changed" in told.err
    assert produce([module], [*options, "--write"], "x", "") == 0
    assert produce([module], options, "x", "") == 0
    assert "+++" not in capsys.readouterr().out.rpartition("tables, CSV")[0].partition("+++")[1]


def test_bad_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), "--jobs", "0"]
    assert produce([table1], options, "python -m paper_figs.table1", "") == 2  # type: ignore[list-item]
    assert "jobs = 0: must be at least 1" in capsys.readouterr().err
