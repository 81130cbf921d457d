"""The sidebar's question, who is admitted, and how numbers are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from areal_sched.errors import ConfigError
from areal_sim.models import load_model
from areal_sim.ui import access, units
from areal_sim.ui.form import GPU_NAMES, MODELS, WORKLOADS, Form


def test_the_page_begins_with_a_question_that_can_be_asked() -> None:
    question = Form().question()
    assert str(question.gpus[0]) == "64xH800"
    assert (question.task, question.objective, question.deadline_h) == ("math", "hours", None)


def test_every_model_gpu_and_workload_that_is_offered_is_known() -> None:
    names = [load_model(name).name for name in MODELS]
    assert len(set(names)) == len(names)
    for gpu in GPU_NAMES:
        assert Form(gpus=(gpu,)).question().gpus[0].gpu == gpu
    for task in WORKLOADS:
        assert Form(task=task).question().task == task


def test_a_trace_takes_the_place_of_the_task(tmp_path: Path) -> None:
    trace = tmp_path / "lengths.csv"
    trace.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,10,20\n")
    question = Form(trace=f" {trace} ").question()
    assert (question.trace, question.task) == (trace, None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gpus": ()}, "gpus: choose at least one kind"),
        ({"model": "8b"}, "model = '8b': neither a known model nor a path"),
        ({"count": 12}, "gpus = 12: does not fill nodes"),
        ({"budget_usd": 0.0}, "budget_usd = 0.0: expected a number > 0"),
        ({"schedulers": ()}, "schedulers: needs at least one"),
        ({"objective": "gpus"}, "the fewest GPUs for what?"),
        ({"trace": "no/such/file"}, "trace = 'no/such/file': no such file"),
    ],
)
def test_what_makes_no_sense_is_named(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Form(**changes).question()  # type: ignore[arg-type]
    assert said in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1.2.3", "::1"])
def test_this_machine_needs_no_token(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(access.TOKEN_VARIABLE, raising=False)
    access.check_host(host)
    assert access.admits(None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "box"])
def test_others_need_one(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(access.TOKEN_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=f"--host {host}: .* set AREAL_UI_TOKEN"):
        access.check_host(host)
    monkeypatch.setenv(access.TOKEN_VARIABLE, "short")
    with pytest.raises(ConfigError, match="AREAL_UI_TOKEN: has 5 characters, needs at least 16"):
        access.check_host(host)
    monkeypatch.setenv(access.TOKEN_VARIABLE, "sixteen letters!")
    access.check_host(host)
    assert access.admits("sixteen letters!")
    for wrong in (None, "", "sixteen letters", "sixteen letters?", "schlüssel"):
        assert not access.admits(wrong)


def test_simulations_are_kept_where_one_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "caches")
    monkeypatch.delenv(access.CACHE_VARIABLE, raising=False)
    assert access.cache_folder() == Path("caches/areal-lab/plans")
    monkeypatch.setenv(access.CACHE_VARIABLE, "kept")
    assert access.cache_folder() == Path("kept")


def test_numbers_are_written_with_their_changes() -> None:
    assert (units.hours(0.5), units.hours(12.34)) == ("30.0 min", "12.3 h")
    assert (units.dollars(16_165.6), units.dollars(7.5)) == ("16,166", "7.50")
    assert (units.energy(4552.2), units.energy(1.5)) == ("4,552", "1.50")
    assert (units.relative(10.0, 11.0), units.relative(10.0, 10.001)) == ("+10.0 %", None)
    assert units.relative(0.0, 1.0) is None
    assert (units.points(0.2, 0.15), units.points(0.2, 0.2)) == ("-5.0 points", None)
    assert (units.difference(4.0, 3.5), units.difference(4.0, 4.001)) == ("-0.50", None)


def test_markdown_shows_a_message_as_it_is() -> None:
    assert units.plain("max_lag = 1: *no* `x` $") == r"max\_lag = 1\: \*no\* \`x\` \$"
