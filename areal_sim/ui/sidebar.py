"""The sidebar: what is asked."""

from __future__ import annotations

import streamlit as st

from areal_sched.load import built_in
from areal_sim.plan.question import SCHEDULERS
from areal_sim.ui import form
from areal_sim.ui.form import Form


def sidebar() -> Form:
    """Show the sidebar and read it."""
    default = Form()
    with st.sidebar:
        st.subheader("The question")
        model = st.selectbox(
            "Model",
            form.MODELS,
            index=form.MODELS.index(default.model),
            accept_new_options=True,
            help="A known model, or type the path of a Hugging Face config.json.",
        )
        gpus = st.multiselect("GPU", form.GPU_NAMES, default.gpus, help="Kinds to choose from.")
        left, right = st.columns(2)
        count = left.number_input(
            "GPUs",
            1,
            100_000,
            default.count,
            help="All of them for the fewest hours; up to so many for other goals.",
        )
        eta = right.number_input(
            "Greatest eta", 0, None, default.eta, help="Bound of staleness, in versions."
        )
        task = st.selectbox(
            "Task",
            form.WORKLOADS,
            index=form.WORKLOADS.index(default.task),
            help="How long answers are: the paper's tasks, or a preset of a measured model.",
        )
        left, right = st.columns(2)
        prompts = left.number_input("Prompts a step", 1, None, default.prompts_per_step)
        group = right.number_input("Answers a prompt", 1, None, default.group_size)
        response = left.number_input(
            "Longest answer", 1, None, default.max_response_tokens, step=1024, help="Tokens."
        )
        steps = right.number_input("Training steps", 1, None, default.steps)
        objective = st.selectbox(
            "Wanted", form.OBJECTIVE_NAMES, format_func=form.OBJECTIVE_NAMES.__getitem__
        )
        left, right = st.columns(2)
        deadline = left.number_input("Deadline, h", 0.0, None, None, placeholder="none")
        budget = right.number_input("Budget, USD", 0.0, None, None, placeholder="none")
        with st.expander("More"):
            schedulers = st.multiselect("Schedulers", sorted(built_in()), list(SCHEDULERS))
            step_s = st.number_input("Longest step, s", 0.0, None, None, placeholder="any")
            prompt = st.number_input("Longest prompt, tokens", 1, None, default.max_prompt_tokens)
            trace = st.text_input(
                "Trace of lengths", "", placeholder="file", help="In place of the task."
            )
            costs = st.selectbox("Times", form.COST_NAMES, format_func=form.COST_NAMES.__getitem__)
            per_node = st.number_input("GPUs of a node", 1, 64, default.gpus_per_node)
            seed = st.number_input("Seed", 0, None, default.seed)
    return Form(
        model=str(model),
        gpus=tuple(gpus),
        count=count,
        task=task,
        trace=trace,
        prompts_per_step=prompts,
        group_size=group,
        max_prompt_tokens=prompt,
        max_response_tokens=response,
        steps=steps,
        objective=objective,
        deadline_h=deadline,
        budget_usd=budget,
        step_s=step_s,
        eta=eta,
        schedulers=tuple(schedulers),
        costs=costs,
        gpus_per_node=per_node,
        seed=seed,
    )
