"""What the page shows of a plan, and of the best estimate while there is none."""

from __future__ import annotations

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from areal_sim.plan import Finding, Infeasible, Plan
from areal_sim.plan.base import toml_of
from areal_sim.plan.real import real_tables
from areal_sim.plan.space import Candidate
from areal_sim.ui import charts, units
from areal_sim.ui.look import Looks, Numbers, cut, found_by_plan, timeline
from areal_sim.ui.start import Start

_FIRST = "Press **Plan**: it compares hundreds of layouts and simulates the best of them."


def layout_text(candidate: Candidate) -> str:
    """Who does what on which GPUs, in words."""
    c = candidate
    each = f"{c.server_tensor_parallel} GPU" + ("s" if c.server_tensor_parallel > 1 else "")
    trainer = (
        f"tensor parallel {c.tensor_parallel}, pipeline {c.pipeline_parallel}, data parallel"
        f" {c.data_parallel}"
    )
    if c.colocated:
        return f"All GPUs take turns: {c.servers} servers of {each}, then the trainer ({trainer})."
    return (
        f"{c.generation_gpus} GPUs generate: {c.servers} servers of {each}. {c.training_gpus} GPUs"
        f" train: {trainer}."
    )


def known_of(start: Start, looks: Looks) -> Numbers:
    """The plan's numbers, else those of a short simulation.

    Raises:
        ConfigError: it cannot be simulated.
    """
    if start.plan is not None:
        return found_by_plan(start.plan.best)
    part, steps = cut(start.question, start.base)
    return looks.look(start.question, start.base, part=part, steps=steps).numbers


def headline(start: Start, known: Numbers) -> None:
    """The recommendation and its numbers."""
    plan, base = start.plan, start.base
    what = units.plain(
        f"{base.scheduler} on {base.gpus} {base.gpu}, eta {base.eta},"
        f" {base.max_rollouts_in_flight:,} rollouts in flight"
    )
    label = "Recommended" if plan is not None else "A first guess"
    st.markdown(f"##### {label}: {what}")
    st.markdown(units.plain(layout_text(base)))
    if not start.keeps_limits:
        st.warning("No estimate keeps all limits. Plan says for certain, and what would help.")
    columns = st.columns(6)
    note = "short simulation"
    if plan is not None:
        note = "simulated"
        if plan.spread is not None:
            low, high = plan.spread.around(known.hours)
            note = f"90 %: {low:,.1f} to {high:,.1f} h"
    _metric(columns[0], "Hours", units.hours(known.hours), note)
    _metric(
        columns[1], "Cost, USD", units.dollars(known.cost_usd), f"{known.gpu_hours:,.0f} GPU-hours"
    )
    steps = start.question.steps
    _metric(columns[2], "Energy, kWh", units.energy(known.energy_kwh), f"for {steps:,} steps")
    _metric(columns[3], "Step", units.seconds(known.step_s), f"{base.gpus} GPUs")
    worst = f"at most {plan.best.max_lag} seen" if plan is not None else f"eta {base.eta}"
    _metric(columns[4], "Mean lag", f"{known.lag:.1f}", worst)
    if plan is None:
        _metric(columns[5], "Over synchronous", "?", "press Plan")
    elif plan.baseline is None:
        _metric(columns[5], "Over synchronous", "–", "that does not fit")
    else:
        slow = plan.baseline.worth.hours
        _metric(
            columns[5],
            "Over synchronous",
            f"{slow / known.hours:.2f} x",
            f"that takes {units.hours(slow)}",
        )


def _metric(column: DeltaGenerator, label: str, value: str, note: str) -> None:
    column.metric(label, value, note, delta_color="off", delta_arrow="off")


def refusal(found: Infeasible) -> None:
    """Why there is no answer, and what would help."""
    st.error(f"**No answer.** {units.plain(found.reason)}")
    if found.changes:
        st.markdown("What would do:\n" + "\n".join(f"- {units.plain(x)}" for x in found.changes))


def details(plan: Plan | None) -> None:
    """Bottleneck, counterfactuals, runner-up and baseline."""
    if plan is None:
        st.info(_FIRST)
        return
    st.markdown(f"**It waits for:** {units.plain(plan.bottleneck)}.")
    left, right = st.columns([6, 5], gap="large")
    with left:
        st.markdown("**What one change would do**")
        st.dataframe(
            charts.changes_table(plan),
            hide_index=True,
            column_config={
                "step, s": st.column_config.NumberColumn(format="%.1f", width="small"),
                "change, %": st.column_config.NumberColumn(format="%+.1f", width="small"),
            },
        )
    with right:
        st.markdown("**Beside it**")
        rows = [("recommended", plan.best), ("runner-up", plan.runner_up)]
        rows.append(("synchronous", plan.baseline))
        for name, finding in rows:
            if finding is not None:
                _beside(name, finding)
        if plan.spread is not None and plan.spread.by_number:
            told = ", ".join(f"{name} {value:.1%}" for name, value in plan.spread.by_number[:3])
            st.caption(units.plain(f"The interval's greatest single causes: {told}."))


def _beside(name: str, finding: Finding) -> None:
    worth = finding.worth
    told = (
        f"{units.hours(worth.hours)}, {units.dollars(worth.cost_usd)} USD,"
        f" {units.energy(worth.energy_kwh)} kWh, lag {finding.lag:.1f}"
    )
    st.markdown(f"{name}: {units.plain(told)}")
    st.caption(units.plain(str(finding.candidate)))


def pareto(plan: Plan | None) -> None:
    """Hours against lag, and against cost."""
    if plan is None:
        st.info(_FIRST)
        return
    points = charts.points_of(plan)
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**Hours against lag**")
        st.altair_chart(charts.pareto(points, "lag", "mean lag, versions"), width="stretch")
    with right:
        st.markdown("**Hours against cost**")
        st.altair_chart(charts.pareto(points, "cost_usd", "cost, USD"), width="stretch")
    st.caption(
        "The dashed line joins what was simulated and is beaten by nothing in both. Fewer GPUs are"
        " tried for every goal but the fewest hours; on one cluster cost follows the hours."
    )


def gpu_time(start: Start, looks: Looks) -> None:
    """Where the GPU time goes, as bars and as a table."""
    shown: dict[str, dict[str, float]] = {}
    if (plan := start.plan) is not None:
        shown["recommended"] = plan.best.summary["gpu_time_share"]
        if plan.baseline is not None:
            shown["synchronous"] = plan.baseline.summary["gpu_time_share"]
    else:
        part, steps = cut(start.question, start.base)
        shown["first guess"] = looks.look(start.question, start.base, part=part, steps=steps).shares
    st.markdown("**GPU time by cause**")
    st.altair_chart(charts.gpu_time(shown), width="stretch")
    st.html(charts.legend(shown))
    st.dataframe(charts.causes_table(shown), hide_index=True)


@st.cache_data(show_spinner="Drawing a short simulation", max_entries=32)
def _timeline(_start: Start, key: str) -> bytes:
    """The picture; kept by `key`, which says all that it depends on."""
    return timeline(_start.question, _start.base)


def timeline_tab(start: Start) -> None:
    """What every server and the trainer do, in a short simulation of a slice."""
    if st.toggle("Simulate and draw", start.plan is not None, key=f"draw {start.plan is not None}"):
        st.image(_timeline(start, f"{start.question} {start.base}"), width="stretch")
    st.caption("A short simulation of a slice: rows are servers, the last one is the trainer.")


def toml_tab(start: Start) -> None:
    """The configuration, to read and to take along."""
    text = toml_text(start)
    st.download_button(
        "Download plan.toml",
        lambda: text,  # made when asked for: a file laid ready is gone after the page's next run
        file_name="plan.toml",
        mime="application/toml",
        on_click="ignore",
        icon=":material/download:",
    )
    st.caption("Then: `areal-sim run plan.toml`, or `areal-real train plan.toml --out runs/first`.")
    st.code(text, language="toml", height=420)


def toml_text(start: Start) -> str:
    """The plan's own file; before there is one the same of the estimate."""
    if start.plan is not None:
        return start.plan.toml
    comment = "# The best estimate of areal-sim ui, not planned yet. Run: areal-sim run FILE"
    return toml_of(start.question, start.base, comment) + real_tables(start.question, start.base)
