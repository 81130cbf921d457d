"""The tab with the sliders."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from areal_sim.config import resolved_toml
from areal_sim.plan.base import config_of
from areal_sim.rundir import Progress
from areal_sim.ui import charts, units
from areal_sim.ui.look import Compared, Looks, Numbers, compare_estimates, compare_looks
from areal_sim.ui.start import Start
from areal_sim.ui.tweak import SPEEDS, TRANSPORTS, Tweak, apply, choices, untouched

T = TypeVar("T")

RESET = "sliders reset"


@st.cache_resource
def looks() -> Looks:
    """Short simulations of all visitors."""
    return Looks()


@st.fragment
def what_if(start: Start) -> None:
    """Sliders at the left, what they do at the right: at once by estimate, then simulated."""
    left, right = st.columns([2, 3], gap="large")
    with left.container(key="sliders"):
        tweak = _sliders(start)
    with right:
        _controls()
        slot = st.empty()
    try:
        question, candidate = apply(start, tweak)
        _show(slot, start, compare_estimates(start, question, candidate))
        if st.session_state.get("simulate", True):
            bar = right.empty()

            def progress(told: Progress) -> None:
                # Where the sliders moved on meanwhile, this call ends the simulation.
                bar.progress(min(1.0, told.steps / told.wanted))

            compared = compare_looks(looks(), start, question, candidate, progress)
            bar.empty()
            _show(slot, start, compared)
    except ValueError as error:  # bad input, in every part of this project
        slot.warning(units.plain(str(error)))
        return
    with left:
        st.caption(units.plain(str(candidate)))
        comment = "# A what-if of areal-sim ui. Run: areal-sim run FILE\n"
        st.download_button(
            "Download this variant",
            lambda: comment + resolved_toml(config_of(question, candidate)),
            file_name="what-if.toml",
            mime="application/toml",
            on_click="ignore",
        )


def _controls() -> None:
    row = st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="right")
    row.toggle(
        "Simulate",
        True,
        key="simulate",
        help="A slice of the cluster for few steps. Without it: the instant estimate alone.",
    )
    row.button("Reset the sliders", on_click=_reset)


def _reset() -> None:
    # Sliders with other keys are new ones, and stand where they begin.
    st.session_state[RESET] = st.session_state.get(RESET, 0) + 1


def _sliders(start: Start) -> Tweak:
    # Another start has other values to choose from, so its sliders are others.
    text = f"{start.question} {start.base} {st.session_state.get(RESET, 0)}"
    key = hashlib.sha256(text.encode()).hexdigest()[:8]
    known = choices(start, start.base.scheduler).schedulers
    first, second = st.columns(2)
    scheduler = first.selectbox("Schedule", known, key=f"schedule {key}")
    own, free = untouched(start, scheduler), choices(start, scheduler)
    transport = second.selectbox(
        "Weights travel by",
        TRANSPORTS,
        index=TRANSPORTS.index(own.transport),
        format_func={"disk": "disk", "collective": "broadcast"}.__getitem__,
        key=f"transport {scheduler} {key}",
    )
    gpus, batch = start.base.gpus, start.question.train_batch_rollouts

    def slider(label: str, values: Sequence[T], value: T, text: Callable[[T], str], why: str) -> T:
        if len(values) == 1:
            st.caption(f"{label}: {text(value)}")
            return value
        return st.select_slider(
            label,
            options=values,
            value=value,
            format_func=text,
            help=why,
            key=f"{label} {scheduler} {key}",
        )

    training = slider(
        "GPUs for training",
        free.training_gpus,
        own.training_gpus,
        lambda n: f"{n} ({n / gpus:.0%})",
        "The others generate. The layout is the one that is estimated to be the fastest with it.",
    )
    eta = slider(
        "Eta", free.etas, own.eta, str, "How many versions ahead of training rollouts may start."
    )
    in_flight = slider(
        "Rollouts in flight",
        free.in_flights,
        own.in_flight,
        lambda n: f"{n:,} ({n / batch:g} x batch)",
        "At most so many over the cluster at a time.",
    )
    nodes = slider(
        "Nodes",
        free.nodes,
        own.nodes,
        lambda n: f"{n} ({n * gpus // own.nodes} GPUs)",
        "More nodes generate; the trainer stays as it is.",
    )
    speed = slider(
        "Speed of weights and checkpoints",
        SPEEDS,
        1.0,
        lambda x: f"{x:g} x",
        "Of disk, or of the network where weights are broadcast.",
    )
    return Tweak(
        scheduler=scheduler,
        training_gpus=training,
        eta=eta,
        in_flight=in_flight,
        nodes=nodes,
        speed=speed,
        transport=transport,
    )


def _show(slot: DeltaGenerator, start: Start, compared: Compared) -> None:
    before, after = compared.before, compared.after
    base = "the plan" if start.plan is not None else "the best estimate"
    with slot.container():
        row = st.container(horizontal=True, vertical_alignment="center")
        if compared.look is None:
            row.badge("instant estimate", color="orange")
        else:
            part, steps = compared.look.part, compared.look.steps
            where = f"1/{part} of the cluster" if part > 1 else "the whole cluster"
            row.badge(f"simulated: {where}, {steps} steps", color="green")
        row.caption(f"Changes are against {base}.")
        _metrics(before, after)
        if compared.look is not None:
            st.caption("GPU time by cause")
            rows = {base: compared.shares_before, "with the change": compared.shares_after}
            st.altair_chart(charts.gpu_time(rows), width="stretch")
            st.html(charts.legend(rows))


def _metrics(before: Numbers, after: Numbers) -> None:
    """Eight numbers in two rows, each with its change; less is better for all of them."""
    shown = [
        ("Step", units.seconds, units.relative, "step_s"),
        ("Hours", units.hours, units.relative, "hours"),
        ("Cost, USD", units.dollars, units.relative, "cost_usd"),
        ("Energy, kWh", units.energy, units.relative, "energy_kwh"),
        ("GPU-hours", lambda x: f"{x:,.0f}", units.relative, "gpu_hours"),
        ("Servers idle", units.share, units.points, "idle_generation"),
        ("Trainer idle", units.share, units.points, "idle_training"),
        ("Mean lag", lambda x: f"{x:.1f}", units.difference, "lag"),
    ]
    cells = [cell for _ in range(2) for cell in st.columns(4)]
    for cell, (label, written, change, name) in zip(cells, shown, strict=True):
        old, new = getattr(before, name), getattr(after, name)
        delta = change(old, new)
        if delta is None:
            cell.metric(label, written(new), "as before", delta_color="off", delta_arrow="off")
        else:
            cell.metric(label, written(new), delta, delta_color="inverse")
