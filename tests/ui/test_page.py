"""The page, as Streamlit's own tests run it: without a browser."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from areal_sim.ui import access
from areal_sim.ui.page import _answers
from tests.house.repo import ROOT
from tests.ui.cases import SCRIPT

pytestmark = pytest.mark.slow

SMALL = {
    "Prompts a step": 32,
    "Answers a prompt": 4,
    "Longest answer": 4096,
    "Training steps": 20,
    "GPUs": 16,
    "Greatest eta": 2,
}


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], AppTest]:
    monkeypatch.setenv(access.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.delenv(access.TOKEN_VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # Streamlit replaces it
    _answers.clear()
    return lambda: AppTest.from_file(str(ROOT / SCRIPT), default_timeout=120)


def small(app: AppTest) -> AppTest:
    app.run()
    assert not app.exception
    by_label(app.selectbox, "Model").set_value("1.5b")
    for label, value in SMALL.items():
        by_label(app.number_input, label).set_value(value)
    return app.run()


def by_label(elements: Iterable[Any], label: str) -> Any:
    """The one with that label."""
    (found,) = (x for x in elements if x.label == label)
    return found


def metrics(app: AppTest) -> dict[str, str]:
    """Of the what-ifs, whose metrics come after the headline's."""
    return {x.label: x.value for x in app.metric[6:]}


def test_it_is_useful_at_once_and_a_slider_changes_the_numbers(
    page: Callable[[], AppTest],
) -> None:
    app = small(page())
    assert not app.exception
    assert any("A first guess: areal on 16 H800" in x.value for x in app.markdown)
    before = metrics(app)
    assert set(before) == {
        "Step", "Hours", "Cost, USD", "Energy, kWh", "GPU-hours", "Servers idle", "Trainer idle",
        "Mean lag",
    }  # fmt: skip
    by_label(app.select_slider, "Nodes").set_value(4)
    app.run()
    assert not app.exception
    after = metrics(app)
    assert after["Step"] != before["Step"]
    assert any("simulated" in x.value for x in app.markdown)
    (step,) = (x for x in app.metric[6:] if x.label == "Step")
    assert step.delta.startswith("-")
    by_label(app.toggle, "Simulate").set_value(False)
    app.run()
    assert any("instant estimate" in x.value for x in app.markdown)
    by_label(app.button, "Reset the sliders").click()
    app.run()
    assert by_label(app.select_slider, "Nodes").value == 2


def test_a_plan_is_shown_and_remembered(page: Callable[[], AppTest], tmp_path: Path) -> None:
    app = small(page())
    by_label(app.button, "Plan").click()
    app.run()
    assert not app.exception
    told = [x.value for x in app.markdown]
    assert any(x.startswith("##### Recommended") for x in told)
    assert any(x.startswith("**It waits for:**") for x in told)
    assert any(x.startswith("runner-up: ") for x in told)
    assert "Over synchronous" in [x.label for x in app.metric[:6]]
    (code,) = app.code
    assert code.value.startswith("# Made by areal-sim plan.")
    assert list(tmp_path.glob("*.json")), "simulations are kept"
    (answered,) = _answers()
    assert answered.train_batch_rollouts == 128
    # Another question, and back: the answer is there without a click.
    by_label(app.number_input, "GPUs").set_value(8)
    app.run()
    assert any("A first guess" in x.value for x in app.markdown)
    by_label(app.number_input, "GPUs").set_value(16)
    app.run()
    assert any(x.value.startswith("##### Recommended") for x in app.markdown)


def test_a_bad_value_is_said_and_mended(page: Callable[[], AppTest]) -> None:
    app = page().run()
    by_label(app.number_input, "GPUs").set_value(12)
    app.run()
    assert not app.exception
    (error,) = app.error
    assert error.value.startswith("gpus = 12")
    by_label(app.number_input, "GPUs").set_value(16)
    assert not app.run().error


def test_what_cannot_be_is_refused_with_what_would_do(page: Callable[[], AppTest]) -> None:
    app = page().run()
    by_label(app.selectbox, "Model").set_value("32b")
    by_label(app.number_input, "GPUs").set_value(2)
    app.run()
    assert not app.exception
    (error,) = app.error
    assert error.value.startswith("**No answer.**")
    assert any(x.value.startswith("What would do:") for x in app.markdown)


def test_with_a_token_only_those_who_know_it_are_admitted(
    page: Callable[[], AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "a long secret of ours"
    monkeypatch.setenv(access.TOKEN_VARIABLE, token)
    app = page().run()
    assert not app.sidebar.selectbox
    app.text_input[0].set_value("a long secret of yours").run()
    assert [x.value for x in app.error] == ["This is not the token."]
    assert not app.sidebar.selectbox
    app.text_input[0].set_value(token).run()
    assert app.sidebar.selectbox
    linked = page()
    linked.query_params["token"] = token
    linked.run()
    assert linked.sidebar.selectbox
    assert "token" not in linked.query_params
