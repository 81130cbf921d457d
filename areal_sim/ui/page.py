"""The page: the question in the sidebar, the answer and the what-ifs beside it."""

from __future__ import annotations

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from areal_sched.errors import ArealError
from areal_sim.plan import Infeasible, Plan, Question, plan
from areal_sim.ui import access, answer, start, units
from areal_sim.ui.sidebar import sidebar
from areal_sim.ui.start import Start
from areal_sim.ui.what_if import looks, what_if

KEPT = 32
"""Answers that are remembered for all visitors; their simulations are kept on disk."""

STAGES = {
    "estimates": ("Estimating every layout", 0.0, 0.08),
    "first look": ("Simulating the best", 0.08, 0.25),
    "closer look": ("Looking closer", 0.25, 0.38),
    "final": ("The last two", 0.38, 0.5),
    "what if": ("What single changes would do", 0.5, 0.95),
    "synchronous": ("The synchronous run beside it", 0.95, 1.0),
}
"""Of a plan: what is said, and from where to where the bar goes."""

_ICON = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">
<rect x="2" y="4" width="28" height="7" fill="#0072b2"/>
<rect x="2" y="13" width="18" height="7" fill="#009e73"/>
<rect x="10" y="22" width="20" height="7" fill="#d55e00"/>
</svg>"""
"""Three rows of a timeline. One of Streamlit's own icons would be fetched from a font server."""

_STYLE = """
<style>
  .stMainBlockContainer { padding: 1.5rem 2.5rem 1rem 2.5rem; }
  [data-testid="stMetricValue"] { font-size: 1.45rem; }
  [data-testid="stHeader"] { height: 0; min-height: 0; }
  .st-key-sliders { gap: 0.55rem; }
  [data-testid="stSidebarUserContent"] { padding-top: 0; }
  [data-testid="stSidebarHeader"] { height: 2rem; }
</style>
"""


def show() -> None:
    """Show it all."""
    st.set_page_config(page_title="areal-lab planner", page_icon=_ICON, layout="wide")
    st.html(_STYLE)
    if not _admitted():
        return
    form = sidebar()
    title, button = st.columns([5, 1], vertical_alignment="center")
    title.markdown("### Plan an asynchronous RL run")
    wanted = button.button("Plan", type="primary", width="stretch", icon=":material/play_arrow:")
    try:
        question = form.question()
        slot = st.empty()
        if wanted:
            _plan(question, slot)
        found = _answers().get(question)
        if isinstance(found, Infeasible):
            answer.refusal(found)
            return
        _answer(_estimated(question) if found is None else start.planned(found))
    except Infeasible as error:
        answer.refusal(error)
    except (ValueError, OSError, ArealError) as error:
        st.error(units.plain(str(error)))


def _admitted() -> bool:
    """Whether the visitor may use the page; asks for the token if not."""
    if st.session_state.get("admitted") or access.admits(st.query_params.get("token")):
        st.session_state["admitted"] = True
        if "token" in st.query_params:
            del st.query_params["token"]  # out of the address, which ends up in histories
        return True
    st.markdown("### areal-lab planner")
    given = st.text_input("Token", type="password", help=f"The value of {access.TOKEN_VARIABLE}.")
    if given and access.admits(given):
        st.session_state["admitted"] = True
        st.rerun()
    if given:
        st.error("This is not the token.")
    return False


@st.cache_resource
def _answers() -> dict[Question, Plan | Infeasible]:
    return {}


@st.cache_resource(show_spinner="Estimating every layout", max_entries=KEPT)
def _estimated(question: Question) -> Start:
    return start.estimated(question)


def _plan(question: Question, slot: DeltaGenerator) -> None:
    """Answer a question with a progress bar, or remember that there is no answer."""
    answers = _answers()
    if question in answers:
        return
    bar = slot.progress(0.0, "Planning")

    def progress(stage: str, done: int, of: int) -> None:
        # Where the visitor changed something, or went away, this call ends the planning.
        text, first, last = STAGES.get(stage, (stage, 0.0, 1.0))
        share = first + (last - first) * (done / of if of else 1.0)
        bar.progress(share, f"{text}: {done} of {of}" if of else text)

    found: Plan | Infeasible
    try:
        found = plan(question, cache=access.cache_folder(), progress=progress)
    except Infeasible as error:
        found = error
    bar.empty()
    answers[question] = found
    while len(answers) > KEPT:
        del answers[next(iter(answers))]


def _answer(begin: Start) -> None:
    with st.spinner("Simulating a slice"):
        known = answer.known_of(begin, looks())
    answer.headline(begin, known)
    names = ["What if", "Why", "Pareto", "GPU time", "Timeline", "TOML"]
    tabs = st.tabs(names)
    with tabs[0]:
        what_if(begin)
    with tabs[1]:
        answer.details(begin.plan)
    with tabs[2]:
        answer.pareto(begin.plan)
    with tabs[3]:
        answer.gpu_time(begin, looks())
    with tabs[4]:
        answer.timeline_tab(begin)
    with tabs[5]:
        answer.toml_tab(begin)
