"""The outcomes as text, JSON and picture, against the bars that were set before."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from validation.cases import FITTED
from validation.figures import PHASES, Figures, spread
from validation.predict import Outcome

STEP_MEDIAN, STEP_WORST, PHASE_MEDIAN = 0.05, 0.10, 0.10
IDLE_POINTS, LAG_VERSIONS = 0.05, 0.2
"""The bars: relative errors, shares, versions."""

HEADINGS = (
    *("case", "change", "measured", "noise", "predicted", "error"),
    *("idle gen.", "idle train.", "lag"),
)

SCHEDULES = ("base", "scheduler", "interruption")
"""Cases that differ in nothing but the schedule: the base's name, and the changes."""


def report(found: Sequence[Outcome]) -> str:
    """The tables, and what became of each bar."""
    lines = [
        "step time in seconds, median of the runs (noise: half of their range) and predicted",
        _row(HEADINGS),
    ]
    for outcome in found:
        middle, own = outcome.middle, outcome.predicted
        noise = spread([run.step_s for run in outcome.measured])
        lines.append(
            _row(
                (
                    outcome.case.name,
                    outcome.case.change,
                    f"{middle.step_s:.3f}",
                    f"{noise:.1%}",
                    f"{own.step_s:.3f}",
                    f"{own.step_s / middle.step_s - 1:+.1%}",
                    f"{middle.generation_idle:.0%} {own.generation_idle:.0%}",
                    f"{middle.training_idle:.0%} {own.training_idle:.0%}",
                    f"{middle.lag:.2f} {own.lag:.2f}",
                )
            )
        )
    lines += ["", "error of each phase (its noise)", _phases_head()]
    lines += [_phases(outcome) for outcome in found]
    return "\n".join([*lines, "", *verdicts(found)])


def predicted(found: Sequence[Outcome]) -> list[Outcome]:
    """Those that nothing was fitted to."""
    return [outcome for outcome in found if outcome.case.change != FITTED]


def verdicts(found: Sequence[Outcome]) -> list[str]:
    """What became of each bar, over the cases that nothing was fitted to."""
    own = predicted(found)
    if not own:
        return ["every case here was fitted to"]
    steps = [abs(x.predicted.step_s / x.middle.step_s - 1) for x in own]
    worst = own[int(np.argmax(steps))].case.name
    lines = [
        f"{len(own)} cases that nothing was fitted to:",
        _bar("step time, median error", float(np.median(steps)), STEP_MEDIAN, "{:.1%}"),
        _bar(f"step time, worst error ({worst})", max(steps), STEP_WORST, "{:.1%}"),
    ]
    for name in PHASES:
        errors = [abs(e) for x in own if (e := _phase_error(x, name)) is not None]
        if errors:
            text = f"{name}, median error"
            lines.append(_bar(text, float(np.median(errors)), PHASE_MEDIAN, "{:.1%}"))
    gaps: tuple[tuple[str, Callable[[Figures], float], float, str], ...] = (
        ("generation idle, greatest gap", lambda x: x.generation_idle, IDLE_POINTS, "{:.1%}"),
        ("training idle, greatest gap", lambda x: x.training_idle, IDLE_POINTS, "{:.1%}"),
        ("mean lag, greatest gap", lambda x: x.lag, LAG_VERSIONS, "{:.2f}"),
    )
    for text, of, bar, form in gaps:
        values = [abs(of(x.predicted) - of(x.middle)) for x in own]
        where = own[int(np.argmax(values))].case.name
        within = sum(value <= bar for value in values)
        lines.append(
            _bar(f"{text} ({where}; {within} of {len(own)} within)", max(values), bar, form)
        )
    return [*lines, *ranking(found)]


def ranking(found: Sequence[Outcome]) -> list[str]:
    """Whether the simulation orders schedules as reality does, by tokens trained a second."""
    own = [x for x in found if x.case.name == SCHEDULES[0] or x.case.change in SCHEDULES[1:]]
    right, wrong, close = 0, [], 0
    for a, b in itertools.combinations(own, 2):
        first, second = ([run.throughput for run in x.measured] for x in (a, b))
        if max(first) >= min(second) and max(second) >= min(first):
            close += 1  # their runs overlap: the difference does not exceed the noise
        elif (a.middle.throughput > b.middle.throughput) == (
            a.predicted.throughput > b.predicted.throughput
        ):
            right += 1
        else:
            wrong.append(f"{a.case.name} and {b.case.name}")
    line = f"  {'met   ' if not wrong else 'MISSED'} schedules in the order of reality: {right} of"
    line += f" {right + len(wrong)} pairs ({close} more within the noise)"
    return [line + (f"; wrong: {', '.join(wrong)}" if wrong else "")]


def _bar(text: str, value: float, bar: float, form: str) -> str:
    verdict = "met   " if value <= bar else "MISSED"
    return f"  {verdict} {text}: {form.format(value)} (bar {form.format(bar)})"


def _phase_error(outcome: Outcome, name: str) -> float | None:
    measured, own = outcome.middle.phases.get(name), outcome.predicted.phases.get(name)
    return own / measured - 1 if measured and own else None


def _row(cells: Sequence[str]) -> str:
    widths = (18, 13, 10, 7, 11, 8, 11, 12, 11)
    first = f"{cells[0]:<{widths[0]}}{cells[1]:<{widths[1]}}"
    rest = zip(cells[2:], widths[2:], strict=True)
    return first + "".join(f"{cell:>{width}}" for cell, width in rest)


def _phases_head() -> str:
    return f"{'case':<18}" + "".join(f"{name:>19}" for name in PHASES)


def _phases(outcome: Outcome) -> str:
    cells = []
    for name in PHASES:
        error = _phase_error(outcome, name)
        if error is None:
            cells.append(f"{'-':>19}")
            continue
        noise = spread([run.phases[name] for run in outcome.measured if name in run.phases])
        cells.append(f"{f'{error:+.1%} ({noise:.0%})':>19}")
    return f"{outcome.case.name:<18}" + "".join(cells)


def to_json(found: Sequence[Outcome]) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "cases": [
            {
                "name": x.case.name,
                "change": x.case.change,
                "settings": dict(x.case.settings),
                "fitted": x.case.change == FITTED,
                "measured": [_rounded(dataclasses.asdict(run)) for run in x.measured],
                "predicted": _rounded(dataclasses.asdict(x.predicted)),
            }
            for x in found
        ],
        "verdicts": verdicts(found),
    }


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _rounded(value) if isinstance(value, dict) else float(f"{value:.5g}")
        for key, value in values.items()
    }


def picture(found: Sequence[Outcome], path: Path) -> Path:
    """Errors of step times beside the noise of the runs; idle shares and lags by measured ones."""
    from analysis.drawing import FAINT, SECOND, SERIES, new_figure, save, style

    with style():
        figure = new_figure(11, 4.6)
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.5, 1, 1))
        rows = range(len(found), 0, -1)
        for row, outcome in zip(rows, found, strict=True):
            runs = [100 * (run.step_s / outcome.middle.step_s - 1) for run in outcome.measured]
            left.plot([min(runs), max(runs)], [row, row], color=FAINT, linewidth=5, alpha=0.5)
            error = 100 * (outcome.predicted.step_s / outcome.middle.step_s - 1)
            left.plot([error], [row], "o", color=_colour(outcome), markersize=5)
            for of, shade in (("generation_idle", SERIES), ("training_idle", SECOND)):
                shares = [100 * getattr(x, of) for x in (outcome.middle, outcome.predicted)]
                middle.plot(*([share] for share in shares), "o", color=shade, markersize=4)
            lags = [x.lag for x in (outcome.middle, outcome.predicted)]
            right.plot(*([lag] for lag in lags), "o", color=_colour(outcome), markersize=4)
        left.axvline(0, color=FAINT, linewidth=0.8, zorder=0)
        left.set_yticks(list(rows), [outcome.case.name for outcome in found])
        left.set_title("step time (bars: the real runs; black: fitted to)")
        left.set_xlabel("off the median of the real runs, %")
        for axes, title, unit in (
            (middle, "idle share (blue: generation)", "%"),
            (right, "mean lag", "versions"),
        ):
            low = min(axes.get_xlim()[0], axes.get_ylim()[0])
            high = max(axes.get_xlim()[1], axes.get_ylim()[1])
            axes.plot([low, high], [low, high], color=FAINT, linewidth=0.8, zorder=0)
            axes.set_title(title)
            axes.set_xlabel(f"measured, {unit}")
            axes.set_ylabel(f"predicted, {unit}")
        figure.tight_layout()
        return save(figure, path)


def _colour(outcome: Outcome) -> str:
    from analysis.drawing import SERIES

    return "black" if outcome.case.change == FITTED else SERIES
