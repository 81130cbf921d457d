"""Energy and money: by hand, between their bounds, and absent where nothing is known."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.accounts import accounts
from analysis.causes import CAUSE, CAUSES
from analysis.errors import AnalysisError
from analysis.facts import RunFacts
from analysis.power import Power, power_summary
from analysis.recorder import RunRecorder
from analysis.summary import summarise
from tests.analysis.by_hand import recorder, rollout
from tests.analysis.made_up_run import MadeUpRun

S = 10**9
POWER = Power(
    busy_watts=700,
    idle_watts=100,
    host_watts_per_gpu=50,
    power_usage_effectiveness=1.2,
    usd_per_gpu_hour=3,
)
UNKNOWN = {
    "cost_usd": None,
    "usd_per_million_trained_tokens": None,
    "energy_kwh": None,
    "energy_j_per_trained_token": None,
}
NUMBERS = [field.name for field in fields(Power)]


def test_by_hand() -> None:
    """Four server GPUs decode 60 s and idle 40 s, three training GPUs the other way round."""
    servers = {i: [("generate", 60 * S, 0, 0, 500), ("idle", 40 * S)] for i in (0, 1)}
    made = recorder(servers, [("idle", 60 * S), ("minibatch", 40 * S)], power=POWER)
    made.settled(
        [rollout(i, generated_tokens=500, settled_ns=100 * S, train_ns=60 * S) for i in range(2)]
    )
    made.ended(100 * S, [])
    busy_s, idle_s = 4 * 60 + 3 * 40, 4 * 40 + 3 * 60
    energy_j = 1.2 * (busy_s * 750 + idle_s * 150)
    found = power_summary(POWER, accounts(made).gpu_ns, 1000)
    assert found["energy_kwh"] == pytest.approx(energy_j / 3.6e6)
    assert found["energy_j_per_trained_token"] == pytest.approx(energy_j / 1000)
    assert found["cost_usd"] == pytest.approx(7 * 100 / 3600 * 3)
    assert found["usd_per_million_trained_tokens"] == pytest.approx(7 * 100 / 3600 * 3 * 1000)


def test_what_waits_is_down_or_left_over_is_at_idle_watts() -> None:
    idle = {"paused", "idle_generation", "server_down", "waiting", "idle_training", "trainer_down"}
    assert {cause.key for cause in CAUSES if not cause.busy} == idle | {"unused"}
    for cause in CAUSES:
        assert POWER.watts(cause.key) == pytest.approx(1.2 * (750 if cause.busy else 150))


def test_unused_gpus_are_paid_for_and_draw_power() -> None:
    servers = {0: [("idle", 100 * S)], 1: [("idle", 100 * S)]}
    few = accounts(recorder(servers, [("idle", 100 * S)])).gpu_ns
    many = accounts(recorder(servers, [("idle", 100 * S)], gpus=10)).gpu_ns
    assert POWER.cost_usd(few) == pytest.approx(7 * 100 / 3600 * 3)
    assert POWER.cost_usd(many) == pytest.approx(10 * 100 / 3600 * 3)
    assert POWER.energy_j(many) == pytest.approx(10 * 100 * 1.2 * 150)


@pytest.mark.parametrize("name", ["areal_run", "synchronous_run"])
def test_energy_is_the_sum_over_causes_and_between_all_idle_and_all_busy(
    name: str, request: pytest.FixtureRequest
) -> None:
    run: MadeUpRun = request.getfixturevalue(name)
    power, summary = run.facts.power, summarise(run.recorder, run.now_ns, 1.0, "")
    assert power is not None
    whole_s = summary["gpu_hours"] * 3600
    by_cause = {
        key: share * whole_s * (1.25 * (750 if CAUSE[key].busy else 150))
        for key, share in summary["gpu_time_share"].items()
    }
    energy_j = summary["energy_kwh"] * 3.6e6
    assert energy_j == pytest.approx(sum(by_cause.values()))
    assert 1.25 * 150 * whole_s < energy_j < 1.25 * 750 * whole_s
    assert summary["cost_usd"] == pytest.approx(summary["gpu_hours"] * 2)
    tokens = summary["trained_tokens"]
    rows = run.recorder.trajectories["generated_tokens"][run.recorder.settlement("train_ns") >= 0]
    assert 0 < tokens <= rows.sum()
    assert summary["energy_j_per_trained_token"] == pytest.approx(energy_j / tokens)
    assert summary["usd_per_million_trained_tokens"] == pytest.approx(
        summary["cost_usd"] / tokens * 1e6
    )


WATTS = st.floats(0, 2000, allow_subnormal=False)
TIMES = st.fixed_dictionaries({cause.key: st.integers(0, 10**19) for cause in CAUSES})


@given(TIMES, WATTS, WATTS, WATTS, st.floats(1, 3), st.floats(0, 100))
def test_bounds_and_shares_hold_for_any_account(
    gpu_ns: dict[str, int], a: float, b: float, host: float, effectiveness: float, price: float
) -> None:
    power = Power(
        busy_watts=max(a, b),
        idle_watts=min(a, b),
        host_watts_per_gpu=host,
        power_usage_effectiveness=effectiveness,
        usd_per_gpu_hour=price,
    )
    whole_s = sum(gpu_ns.values()) / 1e9
    energy_j, close = power.energy_j(gpu_ns), 1 + 1e-9
    assert energy_j is not None
    least = effectiveness * (min(a, b) + host) * whole_s
    most = effectiveness * (max(a, b) + host) * whole_s
    assert least / close <= energy_j <= most * close
    halves = [{key: ns // 2 for key, ns in gpu_ns.items()}]
    halves.append({key: ns - halves[0][key] for key, ns in gpu_ns.items()})
    assert sum(power.energy_j(x) or 0 for x in halves) == pytest.approx(energy_j)
    assert sum(power.cost_usd(x) or 0 for x in halves) == pytest.approx(power.cost_usd(gpu_ns))
    everywhere = replace(power, idle_watts=power.busy_watts)
    assert everywhere.energy_j(gpu_ns) == pytest.approx(most)


# ---- what is not known --------------------------------------------------------------------------


@pytest.mark.parametrize("name", NUMBERS)
def test_one_number_missing_leaves_out_what_needs_it(name: str) -> None:
    made = recorder({0: [("idle", S)], 1: [("idle", S)]}, [("idle", S)])
    found = power_summary(replace(POWER, **{name: None}), accounts(made).gpu_ns, 10)
    money = name == "usd_per_gpu_hour"
    assert {key for key, value in found.items() if value is None} == {
        key for key in UNKNOWN if ("usd" in key) == money
    }


def test_without_trained_tokens_there_is_no_energy_of_one() -> None:
    found = power_summary(POWER, {"decode": S}, 0)
    assert found["energy_kwh"] > 0 < found["cost_usd"]
    assert found["energy_j_per_trained_token"] is found["usd_per_million_trained_tokens"] is None


def header(**run: Any) -> dict[str, Any]:
    facts = recorder({}, []).facts
    names = set(RunFacts.__dataclass_fields__) - {"scheduler", "options", "limits", "power"}
    return {"run": {**{name: getattr(facts, name) for name in names}, **run}}


@pytest.mark.parametrize("run", [{}, {"power": None}])
def test_a_header_that_does_not_say_is_read(run: dict[str, Any]) -> None:
    """Journals of real runs, and of simulations before there was power."""
    facts = RunFacts.from_header(header(**run))
    assert facts.power is None
    made = RunRecorder(facts)
    made.ended(0, [])
    assert power_summary(facts.power, accounts(made).gpu_ns, 10) == UNKNOWN


def test_a_header_that_says_more_or_less_is_read() -> None:
    stated = {"busy_watts": 300, "idle_watts": None, "watts_of_a_later_version": 1}
    assert RunFacts.from_header(header(power=stated)).power == Power(busy_watts=300)


@pytest.mark.parametrize(
    ("power", "message"),
    [
        ({"idle_watts": -1}, r"run\.power\.idle_watts = -1: expected a number >= 0, or null"),
        ({"busy_watts": "x"}, r"run\.power\.busy_watts = 'x': expected a number >= 0"),
        ({"usd_per_gpu_hour": True}, r"run\.power\.usd_per_gpu_hour = True: expected"),
        ({"host_watts_per_gpu": float("inf")}, r"run\.power\.host_watts_per_gpu = inf"),
        (
            {"power_usage_effectiveness": 0.9},
            r"run\.power\.power_usage_effectiveness = 0\.9: expected a number >= 1",
        ),
        ([700], r"run\.power = \[700\]: expected a mapping"),
    ],
)
def test_a_wrong_number_is_named(power: Any, message: str) -> None:
    with pytest.raises(AnalysisError, match=rf"^j: header: {message}"):
        RunFacts.from_header(header(power=power), "j")
