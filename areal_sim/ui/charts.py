"""The page's charts."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import altair as alt
import pandas as pd

from analysis.causes import CAUSES, Cause
from analysis.drawing import FAINT, SECOND, SERIES
from areal_sim.plan import Plan

MOST_ESTIMATES = 400
"""Points of estimates in a picture: the best, since the others are far away."""

SEEN, DRAWN = 0.0005, 0.004
"""Causes of less of the GPU time are left out of the table, and of the bars."""

KINDS = {"estimated": "#b8c4cf", "simulated": SERIES, "recommended": SECOND}


def points_of(plan: Plan) -> pd.DataFrame:
    """Everything a plan knows of, a row each: kind, hours, cost_usd, lag, what it is."""
    steps = plan.question.steps
    price = plan.best.worth.cost_usd / plan.best.worth.gpu_hours
    rows = []
    for estimate in plan.estimates[:MOST_ESTIMATES]:
        hours = estimate.step_s * steps / 3600
        # Another kind of GPU has another price, which only a simulation of it tells.
        if estimate.candidate.gpu == plan.best.candidate.gpu:
            cost = hours * estimate.candidate.gpus * price
            rows.append(("estimated", hours, cost, estimate.lag, str(estimate.candidate)))
    for finding in plan.findings:
        kind = "recommended" if finding.candidate == plan.best.candidate else "simulated"
        worth = finding.worth
        rows.append((kind, worth.hours, worth.cost_usd, finding.lag, str(finding.candidate)))
    return pd.DataFrame(rows, columns=["kind", "hours", "cost_usd", "lag", "what"])


def front(points: pd.DataFrame, column: str) -> pd.DataFrame:
    """Simulated points that no other is better than in both hours and `column`, by hours."""
    known = points[points.kind != "estimated"].sort_values(["hours", column])
    least = known[column].cummin().shift(fill_value=float("inf"))
    return known[known[column] < least]


def pareto(points: pd.DataFrame, column: str, title: str) -> alt.LayerChart | alt.FacetChart:
    """Hours against something else that should be small, with the front of what was simulated."""
    reach = [points.hours.min() / 1.15, points.hours.max() * 1.15]
    x = alt.X("hours:Q", title="hours", scale=alt.Scale(type="log", domain=reach, nice=False))
    y = alt.Y(f"{column}:Q", title=title, scale=alt.Scale(zero=False))
    colour = alt.Color(
        "kind:N",
        title=None,
        scale=alt.Scale(domain=list(KINDS), range=list(KINDS.values())),
        legend=alt.Legend(orient="top"),
    )
    size = alt.condition("datum.kind == 'recommended'", alt.value(160), alt.value(50))
    opacity = alt.condition("datum.kind == 'estimated'", alt.value(0.4), alt.value(0.95))
    told = [
        alt.Tooltip("what:N", title="what"),
        alt.Tooltip("hours:Q", format=",.2f"),
        alt.Tooltip("cost_usd:Q", title="USD", format=",.0f"),
        alt.Tooltip("lag:Q", format=".2f"),
    ]
    dots = (
        alt.Chart(points)
        .mark_point(filled=True)
        .encode(x=x, y=y, color=colour, size=size, opacity=opacity, tooltip=told)
    )
    line = (
        alt.Chart(front(points, column))
        .mark_line(color=FAINT, strokeDash=[4, 3], interpolate="step-after")
        .encode(x="hours:Q", y=f"{column}:Q")
    )
    return alt.layer(line, dots, height=340)


def gpu_time(rows: Mapping[str, Mapping[str, float]]) -> alt.Chart:
    """Where GPU time goes, a bar for each row: shares by cause. `legend` says what is what."""
    seen = _seen(rows, DRAWN)
    table = pd.DataFrame(
        [
            (name, cause.label, cause.meaning, shares.get(cause.key, 0.0), number)
            for name, shares in rows.items()
            for number, cause in enumerate(seen)
        ],
        columns=["row", "cause", "meaning", "share", "order"],
    )
    scale = alt.Scale(domain=[x.label for x in seen], range=[_colour(x) for x in seen])
    axis = alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1])
    chart: alt.Chart = (
        # With its axis: the page fits all of a chart into its height.
        alt.Chart(table, height=36 * len(rows) + 36)
        .mark_bar(stroke="white", strokeWidth=0.5)
        .encode(
            x=alt.X("share:Q", title=None, axis=axis, scale=alt.Scale(domain=[0, 1])),
            y=alt.Y("row:N", title=None, sort=list(rows), axis=alt.Axis(labelLimit=140)),
            color=alt.Color("cause:N", scale=scale, legend=None),
            order="order:Q",
            tooltip=["cause:N", alt.Tooltip("share:Q", format=".1%"), "meaning:N"],
        )
    )
    return chart


def legend(rows: Mapping[str, Mapping[str, float]]) -> str:
    """The legend of `gpu_time`, HTML: the charts' own takes more room than the chart."""
    marks = "".join(
        f'<span style="white-space:nowrap" title="{html.escape(cause.meaning)}">'
        f'<span style="display:inline-block;width:.7em;height:.7em;background:{_colour(cause)};'
        f'margin-right:.35em"></span>{html.escape(cause.label)}</span>'
        for cause in _seen(rows, DRAWN)
    )
    style = "display:flex;flex-wrap:wrap;gap:.1rem .9rem;font-size:.8rem"
    return f'<div style="{style};color:{FAINT}">{marks}</div>'


def _seen(rows: Mapping[str, Mapping[str, float]], least: float) -> list[Cause]:
    return [cause for cause in CAUSES if any(x.get(cause.key, 0.0) > least for x in rows.values())]


def _colour(cause: Cause) -> str:
    return _mixed(cause.colour, cause.hatch_colour if cause.hatch else None)


def _mixed(colour: str, other: str | None) -> str:
    """The colour a hatched field has from afar; charts of the page have no hatches."""
    if other is None:
        return colour
    return "#" + "".join(
        f"{(2 * int(colour[i : i + 2], 16) + int(other[i : i + 2], 16)) // 3:02x}"
        for i in (1, 3, 5)
    )


def causes_table(rows: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """The same in numbers: a row a cause, with what it means."""
    seen = _seen(rows, SEEN)
    table = pd.DataFrame({"cause": [cause.label for cause in seen]})
    for name, shares in rows.items():
        table[name] = [f"{shares.get(cause.key, 0.0):.1%}" for cause in seen]
    table["meaning"] = [cause.meaning for cause in seen]
    return table


def changes_table(plan: Plan) -> pd.DataFrame:
    """What single changes would do: a row each, the greatest gain first."""
    rows: Sequence[tuple[str, float, float]] = [
        (change.text, change.step_s, 100 * change.relative) for change in plan.changes
    ]
    return pd.DataFrame(rows, columns=["what", "step, s", "change, %"])
