"""How a plan is shown: as tables, as JSON, and as what its picture is drawn from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from areal_sim.commands.show import duration

if TYPE_CHECKING:
    from analysis.plan import Picture
    from areal_sim.plan import Finding, Plan
    from areal_sim.plan.growth import Growing, Stage
    from areal_sim.plan.question import Question
    from areal_sim.plan.space import Candidate

_MOST_POINTS = 400
"""Estimates that a picture shows, the best ones."""


def layout_rows(candidate: Candidate) -> Iterator[tuple[str, str]]:
    """Label and text of what a candidate says."""
    c = candidate
    yield "cluster", f"{c.gpus} {c.gpu}"
    waits = c.scheduler in ("synchronous", "one_step_off")
    staleness = "" if waits else f", eta {c.eta}"
    yield "schedule", f"{c.scheduler}{staleness}, {c.max_rollouts_in_flight:,} rollouts in flight"
    share = "in turn" if c.colocated else f"{c.generation_gpus} GPUs, {c.generation_share:.0%}"
    yield (
        "generation",
        f"{share}: {c.servers} x TP {c.server_tensor_parallel}, memory share"
        f" {c.static_memory_fraction:g}",
    )
    yield (
        "training",
        f"{c.training_gpus} GPUs: TP {c.tensor_parallel}, PP {c.pipeline_parallel},"
        f" DP {c.data_parallel}, micro-batches of {c.micro_batch_tokens:,} tokens",
    )


def show(answer: Plan) -> None:
    """Print an answer."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    best = answer.best
    table = Table(title="The plan", title_justify="left", show_header=False, box=SIMPLE_HEAD)
    table.add_column(style="bold")
    table.add_column()
    for label, text in layout_rows(best.candidate):
        table.add_row(label, text)
    table.add_row("bottleneck", answer.bottleneck)
    console.print(table)

    columns = [
        ("this plan", best),
        ("runner-up", answer.runner_up),
        ("synchronous", answer.baseline),
    ]
    table = Table(title="What it comes to", title_justify="left", box=SIMPLE_HEAD)
    table.add_column()
    shown = [(heading, finding) for heading, finding in columns if finding is not None]
    for heading, _ in shown:
        table.add_column(heading, justify="right")
    for label, texts in _compared([finding for _, finding in shown], answer):
        table.add_row(label, *texts)
    console.print(table)
    if answer.runner_up is not None:
        console.print(f"runner-up: {answer.runner_up.candidate}", highlight=False, soft_wrap=True)
    if answer.baseline is not None:
        console.print(f"synchronous: {answer.baseline.candidate}", highlight=False, soft_wrap=True)

    table = Table(title="What if", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("change")
    table.add_column("step time", justify="right")
    table.add_column("cost", justify="right")
    for change in answer.changes:
        more = 1 + change.more_gpus / best.candidate.gpus
        dearer = (1 + change.relative) * more - 1
        table.add_row(change.text, _percent(change.relative), _percent(dearer))
    console.print(table)
    console.print(_note(answer), highlight=False, soft_wrap=True)
    for warning in warnings_of(answer):
        console.print(warning, highlight=False, soft_wrap=True)


def _percent(relative: float) -> str:
    """A change; below what another seed makes, none."""
    from areal_sim.plan.what_if import NOTHING

    return "no difference" if abs(relative) < NOTHING else f"{relative:+.1%}"


def warnings_of(answer: Plan) -> Iterator[str]:
    """What to know before renting."""
    question, worth = answer.question, answer.best.worth
    limits = (
        ("deadline", question.deadline_h, worth.hours, "h"),
        ("budget", question.budget_usd, worth.cost_usd, "USD"),
    )
    for name, most, value, unit in limits:
        if most is None or answer.spread is None:
            continue
        if (high := answer.spread.around(value)[1]) > most:
            yield f"It may miss the {name} of {most:,g} {unit}: the interval goes to {high:,.3g}."
    if answer.best.candidate.gpus > question.gpus_per_node:
        yield "areal-real starts all its processes on one node so far; more are for the simulator."


def _columns(answer: Plan) -> list[tuple[str, Finding]]:
    """What is compared, with headings."""
    columns = (
        ("this plan", answer.best),
        ("runner-up", answer.runner_up),
        ("synchronous", answer.baseline),
    )
    return [(heading, finding) for heading, finding in columns if finding is not None]


def _compared(findings: list[Finding], answer: Plan) -> Iterator[tuple[str, list[str]]]:
    """Rows of the table that has a column for each finding."""
    yield "time", [f"{each.worth.hours:,.1f} h" for each in findings]
    if answer.spread is not None:
        ranges = [answer.spread.around(each.worth.hours) for each in findings]
        yield "  90 % interval", [f"{low:,.1f} to {high:,.1f} h" for low, high in ranges]
    yield "cost", [f"{each.worth.cost_usd:,.0f} USD" for each in findings]
    yield "energy", [f"{each.worth.energy_kwh:,.0f} kWh" for each in findings]
    yield "GPU-hours", [f"{each.worth.gpu_hours:,.0f}" for each in findings]
    yield "step", [duration(each.step_s) for each in findings]
    idle = [each.summary["idle_share"] for each in findings]
    yield "servers idle", [f"{share['generation']:.0%}" for share in idle]
    yield "trainer idle", [f"{share['training']:.0%}" for share in idle]
    yield "lag (largest), versions", [f"{each.lag:.1f} ({each.max_lag})" for each in findings]
    first = findings[0].worth.hours
    yield "time over the plan's", [f"{each.worth.hours / first:.2f}x" for each in findings]


def _note(answer: Plan) -> str:
    """What was done, and how far to trust it."""
    count = f"{len(answer.estimates):,} candidates estimated, {len(answer.findings)} simulated."
    if answer.spread is None:
        return f"{count} No interval: these costs were never held against a run."
    named = ", ".join(name for name, _ in answer.spread.by_number[:2])
    return (
        f"{count} Intervals are 90 %: the model's error on the paper's runs, and the calibration's"
        f" (most of it from {named}). Cost and energy are as uncertain."
    )


def facts_of(answer: Plan) -> dict[str, Any]:
    """Everything about an answer that JSON can hold."""
    return {
        "question": _question(answer.question),
        "plan": _finding(answer.best, answer),
        "runner_up": None if answer.runner_up is None else _finding(answer.runner_up, answer),
        "synchronous": None if answer.baseline is None else _finding(answer.baseline, answer),
        "bottleneck": answer.bottleneck,
        "what_if": [
            {
                "change": change.text,
                "step_s": change.step_s,
                "without_s": change.without_s,
                "relative": change.relative,
                "more_gpus": change.more_gpus,
            }
            for change in answer.changes
        ],
        "uncertainty": None
        if answer.spread is None
        else {"factor": answer.spread.factor, "by_number": dict(answer.spread.by_number)},
        "simulated": [_finding(finding, answer) for finding in answer.findings],
        "candidates": len(answer.estimates),
        "do_not_fit": list(answer.refused),
        "warnings": list(warnings_of(answer)),
    }


def _question(question: Question) -> dict[str, Any]:
    facts = dataclasses.asdict(question)
    facts["gpus"] = [str(offer) for offer in question.gpus]
    facts["trace"] = None if question.trace is None else str(question.trace)
    return facts


def _finding(finding: Finding, answer: Plan) -> dict[str, Any]:
    worth, spread = finding.worth, answer.spread
    facts: dict[str, Any] = {"candidate": dataclasses.asdict(finding.candidate)}
    for name, value in dataclasses.asdict(worth).items():
        facts[name] = value
        if spread is not None:
            facts[f"{name}_interval"] = list(spread.around(value))
    facts |= {
        "step_s": finding.step_s,
        "idle_share": finding.summary["idle_share"],
        "lag": {"mean": finding.lag, "max": finding.max_lag},
        "simulated_part": f"1/{finding.slice}",
    }
    return facts


def picture_of(answer: Plan) -> Picture:
    """What the picture is drawn from."""
    from analysis.plan import Bar, Picture, Point

    def name(candidate: Candidate) -> str:
        return "synchronous" if candidate.colocated else candidate.scheduler

    def guessed(number: int) -> Point:
        estimate, guess = answer.estimates[number], answer.guesses[number]
        c = estimate.candidate
        share = c.generation_share
        return Point(c.gpus, share, guess.hours, guess.cost_usd, estimate.lag, name(c))

    best, spread = answer.best, answer.spread
    return Picture(
        title=f"{answer.question.shape().name}, {answer.question.steps} steps:"
        f" the least {answer.question.objective}",
        estimated=tuple(map(guessed, range(min(_MOST_POINTS, len(answer.estimates))))),
        simulated=tuple(_point(finding, name(finding.candidate)) for finding in answer.findings),
        best=_point(best, name(best.candidate)),
        bars=tuple(
            Bar(
                label=label,
                hours=finding.worth.hours,
                interval=None if spread is None else spread.around(finding.worth.hours),
                gpu_time_share=dict(finding.summary["gpu_time_share"]),
            )
            for label, finding in _columns(answer)
        ),
    )


def _point(finding: Finding, name: str) -> Any:
    from analysis.plan import Point

    c, worth = finding.candidate, finding.worth
    return Point(c.gpus, c.generation_share, worth.hours, worth.cost_usd, finding.lag, name)


def show_growth(growing: Growing, out: Path) -> dict[str, str]:
    """Print the answer for a run whose answers grow.

    Returns:
        The files to write, by name.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title="Seconds of a step", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("")
    for factor in growing.factors:
        table.add_column(f"lengths x{factor:.2f}", justify="right")
    letters = dict(zip(growing.step_s, "ABC", strict=False))
    for candidate, seconds in growing.step_s.items():
        table.add_row(letters[candidate], *[f"{value:,.0f}" for value in seconds])
    console.print(table)
    for candidate, letter in letters.items():
        print(f"{letter}: {candidate}")

    def text(stage: Stage) -> str:
        last = stage.first_step + stage.steps
        letter = letters[stage.candidate]
        return f"  steps {stage.first_step + 1} to {last}: {letter}, {stage.hours:,.1f} h"

    print(f"one split: {growing.one.hours:,.1f} h")
    print(text(growing.one))
    if growing.two is None:
        print("every part has the same best split: a second one gains nothing")
    else:
        gain = growing.one.hours - growing.two_hours
        verdict = f"{gain:,.1f} h less" if gain > 0 else f"{-gain:,.1f} h more: not worth it"
        print(f"two splits, with {growing.restart_h * 60:.0f} min between: {verdict}")
        for stage in growing.two:
            print(text(stage))
    print(f"written to {out}: {', '.join(growing.tomls)}")
    return growing.tomls
