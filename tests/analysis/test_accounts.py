"""Idle accounting: every GPU-nanosecond has one cause, exactly."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.accounts import accounts, accounts_between
from analysis.causes import CAUSE, CAUSES, SERVER_CAUSE, TRAINER_CAUSE
from analysis.errors import AnalysisError
from analysis.recorder import SERVER_ACTIVITIES, TRAINER_ACTIVITIES, RunRecorder
from analysis.tiling import check_tiling
from tests.analysis.by_hand import recorder
from tests.analysis.made_up_run import MadeUpRun

IDLE: list[tuple[Any, ...]] = [("idle", 100)]


def given_causes(gpu_ns: Any) -> dict[str, int]:
    return {cause: value for cause, value in gpu_ns.items() if value}


def test_separated_by_hand() -> None:
    made = recorder(
        {
            0: [("generate", 50, 5, 10), ("load", 20), ("paused", 10), ("idle", 20)],
            1: [("idle", 30), ("generate", 60, 0, 60), ("down", 10)],
        },
        [("idle", 40), ("proximal", 10, 4), ("minibatch", 30), ("save", 20)],
        gpus=8,
    )
    whole = accounts(made)
    assert given_causes(whole.gpu_ns) == {
        "decode": 2 * 35,
        "prefill": 2 * 5,
        "recompute": 2 * 10 + 2 * 60,
        "load_weights": 2 * 20,
        "paused": 2 * 10,
        "idle_generation": 2 * 20 + 2 * 30,
        "server_down": 2 * 10,
        "proximal": 3 * 6,
        "waiting": 3 * 4,
        "minibatch": 3 * 30,
        "save": 3 * 20,
        "idle_training": 3 * 40,
        "unused": 100,
    }
    assert whole.total_gpu_ns == 8 * 100
    assert whole.share("minibatch") == 90 / 800
    assert whole.idle_share("generation") == (20 + 100 + 20) / 400
    assert whole.idle_share("training") == (120 + 12) / 300
    assert whole.idle_share() == (140 + 132) / 700


def test_colocated_by_hand() -> None:
    made = recorder(
        {
            0: [("generate", 40, 8, 0), ("idle", 10), ("lent", 50)],
            1: [("generate", 50), ("lent", 45), ("down", 5)],
        },
        [("idle", 50), ("switch", 5), ("minibatch", 25, 10), ("idle", 20)],
        gpus=5,
        training_gpus=3,
        colocated=True,
    )
    whole = accounts(made)
    assert given_causes(whole.gpu_ns) == {
        "decode": 2 * 32 + 2 * 50,
        "prefill": 2 * 8,
        "idle_generation": 2 * 10,
        # From 80 ns on the trainer idles with the GPUs of server 0, and of server 1 until 95 ns.
        "idle_training": 2 * 20 + 2 * 15,
        "server_down": 2 * 5,
        "switch": 3 * 5,
        "minibatch": 3 * 15,
        "waiting": 3 * 10,
        # One GPU while servers have theirs, two while the trainer has.
        "unused": 1 * 70 + 2 * 30,
    }
    assert sum(whole.gpu_ns.values()) == 500


def test_trainer_down_while_it_holds_the_gpus() -> None:
    made = recorder(
        {0: [("generate", 60), ("lent", 40)], 1: [("generate", 60), ("lent", 40)]},
        [("idle", 60), ("down", 30), ("save", 10)],
        gpus=4,
        training_gpus=4,
        colocated=True,
    )
    assert given_causes(accounts(made).gpu_ns) == {"decode": 240, "trainer_down": 120, "save": 40}


def test_windows_split_spans_exactly() -> None:
    made = recorder(
        {0: [("generate", 100, 10, 30)], 1: [("idle", 55), ("load", 45)]},
        [("minibatch", 100, 33)],
    )
    first, second = accounts_between(made, [0, 50, 100])
    assert given_causes(first.gpu_ns) == {
        "decode": 2 * 30,
        "prefill": 2 * 5,
        "recompute": 2 * 15,
        "idle_generation": 2 * 50,
        "minibatch": 3 * 34,
        "waiting": 3 * 16,
    }
    assert second.gpu_ns["load_weights"] == 2 * 45
    assert second.gpu_ns["waiting"] == 3 * 17


def test_a_server_that_joins_late_was_down() -> None:
    made = recorder({0: [("idle", 100)], 1: [("joins", 30), ("generate", 70)]}, IDLE)
    assert given_causes(accounts(made).gpu_ns) == {
        "idle_generation": 200,
        "decode": 140,
        "server_down": 60,
        "idle_training": 300,
    }


@pytest.mark.parametrize("goes_on_telling", [True, False])
def test_a_lost_server_that_comes_back_under_a_new_id(goes_on_telling: bool) -> None:
    lost = [("generate", 40), ("down", 60 if goes_on_telling else 20)]
    servers = {0: [("idle", 100)], 1: lost, 2: [("joins", 60), ("generate", 40)]}
    made = recorder(servers, IDLE)
    if not goes_on_telling:
        with pytest.raises(AnalysisError, match="server 1: the account ends at 60 ns"):
            accounts(made)
        return
    assert given_causes(accounts(made).gpu_ns) == {
        "idle_generation": 200,
        "decode": 80 + 80,
        "server_down": 40,
        "idle_training": 300,
    }


def test_too_many_servers_at_a_time() -> None:
    servers = {i: [("idle", 60), ("down", 40)] for i in range(3)}
    with pytest.raises(AnalysisError, match=r"3 servers are up at 0 ns; run.servers = 2"):
        accounts(recorder(servers, IDLE))


@pytest.mark.parametrize(
    ("servers", "trainer", "message"),
    [
        ({0: [("idle", 90)]}, IDLE, "server 0: the account ends at 90 ns, before 100 ns"),
        ({0: IDLE}, [("idle", 90)], "the trainer: the account ends at 90 ns, before 100 ns"),
        ({0: IDLE}, [], "the trainer's account has no span"),
        ({0: [("generate", 100, 60, 50)]}, IDLE, "prefill_ns = 60, recompute_ns = 50"),
        ({0: [("generate", 100, -1)]}, IDLE, "prefill_ns = -1"),
        ({0: IDLE}, [("minibatch", 100, 101)], "waiting_ns = 101"),
        ({0: [("idle", 150), ("idle", -50)]}, IDLE, "from 150 to 100 ns"),
        ({0: [("lent", 100)]}, IDLE, "server 0 reports 'lent' from 0 ns, but the run is not"),
    ],
)
def test_what_cannot_be(servers: Any, trainer: Any, message: str) -> None:
    made = recorder(servers, trainer)
    with pytest.raises(AnalysisError) as raised:
        accounts(made, 0, 100)
    assert message in str(raised.value)


@pytest.mark.parametrize(("shift", "what"), [(3, "gap"), (-3, "overlap")])
def test_gaps_and_overlaps(shift: int, what: str) -> None:
    made = recorder({0: [("idle", 50)]}, IDLE)
    later = recorder({0: [("joins", 50 + shift), ("generate", 50 - shift)]}, [])
    for name in ("server_id", "activity", "start_ns", "end_ns"):
        assert len(later.server_spans[name]) == 1
    _append_spans(made, later)
    with pytest.raises(AnalysisError, match=f"server 0: {what} between 'idle' until 50 ns and "):
        check_tiling(made, 100)


def _append_spans(into: RunRecorder, other: RunRecorder) -> None:
    from areal_sched import ServerSpan

    names = [x for x in other.server_spans.names if x != "activity"]
    for row in range(len(other.server_spans)):
        fields: dict[str, Any] = {x: int(other.server_spans[x][row]) for x in names}
        activity: Any = SERVER_ACTIVITIES[other.server_spans["activity"][row]]
        into.measured(ServerSpan(activity=activity, **fields))


def test_a_trainer_that_begins_late() -> None:
    with pytest.raises(AnalysisError, match="the trainer's account begins at 10 ns"):
        accounts(recorder({0: [("idle", 110)]}, IDLE, 10))


def test_a_colocated_gpu_has_one_owner() -> None:
    made = recorder(
        {0: [("generate", 60), ("lent", 40)]},
        [("idle", 50), ("minibatch", 50)],
        gpus=4,
        training_gpus=4,
        colocated=True,
    )
    with pytest.raises(AnalysisError, match=r"server 0 reports 'generate' .* busy for 10 ns"):
        accounts(made)


@pytest.mark.parametrize("bounds", [[0], [5, 3], [-1, 4]])
def test_bounds_ascend(bounds: list[int]) -> None:
    with pytest.raises(AnalysisError, match="bounds_ns"):
        accounts_between(recorder({0: IDLE}, IDLE), bounds)


def test_every_activity_has_a_cause_and_every_cause_a_meaning() -> None:
    assert set(SERVER_CAUSE) == set(SERVER_ACTIVITIES)
    assert set(TRAINER_CAUSE) == set(TRAINER_ACTIVITIES)
    assert set(SERVER_CAUSE.values()) | set(TRAINER_CAUSE.values()) <= set(CAUSE)
    assert len(CAUSE) == len(CAUSES)
    looks = [(cause.colour, cause.hatch) for cause in CAUSES]
    assert len(set(looks)) == len(looks), "two causes look the same"


activities = st.sampled_from(sorted(set(SERVER_ACTIVITIES) - {"lent"}))


@st.composite
def tilings(draw: st.DrawFn, end_ns: int = 10**12) -> RunRecorder:
    """A separated run of up to four devices with any activities."""

    def cuts() -> list[int]:
        inner = draw(st.lists(st.integers(0, end_ns), max_size=6))
        points = [0, *sorted(inner), end_ns]
        return [b - a for a, b in itertools.pairwise(points)]

    servers = {}
    for server in range(draw(st.integers(1, 3))):
        spans = []
        for length in cuts():
            prefill = draw(st.integers(0, length))
            recompute = draw(st.integers(0, length - prefill))
            spans.append((draw(activities), length, prefill, recompute))
        servers[server] = spans
    trainer = [
        (draw(st.sampled_from(TRAINER_ACTIVITIES)), length, draw(st.integers(0, length)))
        for length in cuts()
    ]
    return recorder(servers, trainer, servers=3, generation_gpus=6, gpus=9)


@given(tilings(), st.lists(st.integers(0, 10**12), min_size=2, max_size=6).map(sorted))
def test_any_tiling_adds_up_in_any_window(made: RunRecorder, bounds: list[int]) -> None:
    for account in accounts_between(made, bounds):
        assert sum(account.gpu_ns.values()) == account.total_gpu_ns
        assert min(account.gpu_ns.values()) >= 0
        assert list(account.gpu_ns) == [cause.key for cause in CAUSES]
    whole = accounts(made)
    parts = accounts_between(made, [0, *bounds, 10**12])
    for cause in CAUSES:
        total = sum(part.gpu_ns[cause.key] for part in parts)
        # Parts of split spans are rounded to the nanosecond, at each bound on each device.
        assert abs(total - whole.gpu_ns[cause.key]) <= 2 * 9 * len(parts)


@pytest.mark.parametrize("name", ["areal_run", "synchronous_run"])
def test_runs_add_up(name: str, request: pytest.FixtureRequest) -> None:
    run: MadeUpRun = request.getfixturevalue(name)
    check_tiling(run.recorder, run.now_ns)
    account = accounts(run.recorder)
    assert sum(account.gpu_ns.values()) == run.facts.gpus * run.now_ns
    spans = run.recorder.server_spans
    prefill = int(spans["prefill_ns"].sum()) * run.facts.gpus_per_server
    assert account.gpu_ns["prefill"] == prefill > 0
    waiting = int(run.recorder.trainer_spans["waiting_ns"].sum()) * run.facts.training_gpus
    assert account.gpu_ns["waiting"] == waiting > 0
