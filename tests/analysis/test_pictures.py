"""Pictures: what they show is the run, and they are written the same each time."""

from __future__ import annotations

import struct
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from analysis.bars import (
    Window,
    interrupts_in,
    rollouts_on,
    sample_servers,
    server_bars,
    trainer_bars,
    window_from,
    window_of_steps,
)
from analysis.causes import CAUSE
from analysis.drawing import hours, percent
from analysis.figures import in_flight_at, ready_at, write_figures
from analysis.recorder import RunRecorder
from analysis.rows import TimelineRun
from analysis.steps import steady_state, steps_of
from analysis.timeline import compare_timelines, draw_timeline, verdict
from areal_sched import Phase
from tests.analysis.by_hand import FACTS, recorder, rollout
from tests.analysis.made_up_run import MadeUpRun


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of a PNG, from its header."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[-8:-4] == b"IEND"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


@pytest.mark.parametrize("name", ["areal_run", "synchronous_run"])
def test_bars_fill_every_row_of_the_window(name: str, request: pytest.FixtureRequest) -> None:
    run: MadeUpRun = request.getfixturevalue(name)
    steps = steps_of(run.recorder)
    window = window_of_steps(steps, 1, 2, run.now_ns).padded(run.now_ns)
    servers = sample_servers(run.recorder, 3)
    bars = server_bars(run.recorder, servers, window)
    if not run.facts.colocated:
        bars += trainer_bars(run.recorder, 3, window)
    area: dict[int, float] = defaultdict(float)
    for bar in bars:
        assert window.start_ns <= bar.start_ns < bar.end_ns <= window.end_ns
        assert 0 <= bar.low < bar.high <= 1
        assert bar.cause in CAUSE
        area[bar.row] += (bar.end_ns - bar.start_ns) * (bar.high - bar.low)
    length = window.end_ns - window.start_ns
    assert dict(area) == pytest.approx(dict.fromkeys(range(3 + (not run.facts.colocated)), length))


def test_lent_servers_show_what_the_trainer_does(synchronous_run: MadeUpRun) -> None:
    window = window_of_steps(steps_of(synchronous_run.recorder), 1, 2, synchronous_run.now_ns)
    causes = {bar.cause for bar in server_bars(synchronous_run.recorder, [0], window)}
    assert {"decode", "idle_generation", "minibatch", "switch", "waiting"} <= causes
    assert "idle_training" not in causes


def test_windows() -> None:
    made = RunRecorder(FACTS)
    for step, end in enumerate((100, 150, 200, 250, 300)):
        made.settled([rollout(step, consumed_version=step, settled_ns=end)])
    steps = steps_of(made)
    assert window_of_steps(steps, 1, 2, 320) == Window(150, 250, 2, 4)
    assert window_of_steps(steps, 0, 9, 320) == Window(0, 300, 0, 5)
    assert window_of_steps(steps_of(RunRecorder(FACTS)), 0, 3, 70) == Window(0, 70, 0, 0)
    assert window_from(steps, 2, 100, 320) == Window(150, 250, 2, 4)
    assert window_from(steps, 4, 120, 320) == Window(200, 320, 3, 5), "begins earlier"
    assert window_from(steps, 4, 999, 320) == Window(0, 320, 0, 5), "no longer than the run"
    assert Window(160, 320, 0, 0).padded(321) == Window(158, 321, 0, 0)


def test_servers_are_sampled_evenly() -> None:
    made = recorder({i: [("idle", 5)] for i in range(0, 200, 2)}, [("idle", 5)])
    shown = sample_servers(made, 5)
    assert shown == [0, 50, 100, 148, 198] or shown == [0, 50, 98, 148, 198]
    assert len(sample_servers(made, 1000)) == 100


def test_rollouts_on_a_server_by_hand() -> None:
    made = RunRecorder(FACTS)
    made.settled([rollout(0, start_ns=0, finish_ns=10, settled_ns=50, server_id=1)])
    made.settled([rollout(1, Phase.FAILED, start_ns=5, settled_ns=20, server_id=1)])
    made.ended(60, [rollout(2, Phase.RUNNING, start_ns=15, server_id=1)])
    times = np.array([0, 5, 10, 19, 20, 60])
    assert rollouts_on(made, [0, 1], times).tolist() == [[0] * 6, [1, 2, 1, 2, 1, 1]]
    assert in_flight_at(made, times).tolist() == [1, 2, 1, 2, 1, 1]


def test_trajectories_ready_by_hand() -> None:
    made = RunRecorder(FACTS)
    made.settled([rollout(0, ready_ns=10, train_ns=30, settled_ns=50)])
    made.settled([rollout(1, Phase.DROPPED, ready_ns=20, settled_ns=40)])
    made.settled([rollout(2, Phase.DROPPED, settled_ns=45)])
    made.ended(60, [rollout(3, Phase.READY, ready_ns=25)])
    times = np.array([9, 10, 20, 25, 30, 40, 60])
    assert ready_at(made, times).tolist() == [0, 1, 2, 3, 2, 1, 1]


def test_in_flight_keeps_the_limit(areal_run: MadeUpRun) -> None:
    grid = np.linspace(0, areal_run.now_ns, 500).astype(np.int64)
    in_flight = in_flight_at(areal_run.recorder, grid)
    assert in_flight.min() >= 0
    assert in_flight.max() == areal_run.facts.limits["max_rollouts_in_flight"]
    assert in_flight[-1] > 0, "live rollouts count to the end"


def test_interruptions_are_marked_where_and_when_they_were(areal_run: MadeUpRun) -> None:
    table = areal_run.recorder.interrupts
    everything = Window(0, areal_run.now_ns, 0, 0)
    times, rows = interrupts_in(areal_run.recorder, [4, 1], everything)
    told = set(zip(table["now_ns"].tolist(), table["server_id"].tolist(), strict=True))
    assert {(t, [4, 1][row]) for t, row in zip(times.tolist(), rows, strict=True)} == {
        (t, server) for t, server in told if server in (1, 4)
    }
    assert len(times) > 0
    assert set(times.tolist()) <= set(steps_of(areal_run.recorder).end_ns.tolist())


def test_a_timeline_is_written_the_same_twice(areal_run: MadeUpRun, tmp_path: Path) -> None:
    first = draw_timeline(areal_run.recorder, tmp_path / "new" / "a.png")
    second = draw_timeline(areal_run.recorder, tmp_path / "b.png")
    assert first.read_bytes() == second.read_bytes()
    width, height = size_of(first)
    assert width == 1800
    assert 300 < height < width
    other = draw_timeline(areal_run.recorder, tmp_path / "c.png", steps=2)
    assert other.read_bytes() != first.read_bytes()


def test_two_runs_in_one_picture(
    areal_run: MadeUpRun, synchronous_run: MadeUpRun, tmp_path: Path
) -> None:
    path = compare_timelines(synchronous_run.recorder, areal_run.recorder, tmp_path / "both.png")
    assert size_of(path)[0] == 1800


def test_the_verdict_names_the_faster_run(areal_run: MadeUpRun) -> None:
    slow = MadeUpRun("synchronous", steps=8, servers=12, training_gpus=12, colocated=True)
    runs = [TimelineRun.of(x.recorder, 4) for x in (slow, areal_run)]
    ratio = slow.now_ns / areal_run.now_ns
    times = hours(slow.now_ns), hours(areal_run.now_ns)
    assert ratio > 1
    assert verdict(*runs) == (
        f"8 steps on 12 GPUs: Synchronous {times[0]}, AReaL {times[1]} ({ratio:.2f} times as fast)"
    )
    short = TimelineRun.of(MadeUpRun("areal", steps=3).recorder, 4)
    assert verdict(runs[0], short).startswith("A step: Synchronous (12 GPUs) ")
    empty = TimelineRun.of(recorder({0: [("idle", 5)]}, [("idle", 5)]), 4)
    assert verdict(empty, empty) == "AReaL and AReaL"


@pytest.mark.parametrize("length_ns", [0, 5, 10**12])
def test_a_run_without_steps_can_be_drawn(length_ns: int, tmp_path: Path) -> None:
    made = recorder({0: [("generate", length_ns)]}, [("idle", length_ns)], servers=1)
    size_of(draw_timeline(made, tmp_path / "t.png"))
    size_of(compare_timelines(made, made, tmp_path / "c.png"))
    assert [x.name for x in write_figures(made, tmp_path)] == ["in_flight.png"]


def test_all_figures(areal_run: MadeUpRun, tmp_path: Path) -> None:
    files = write_figures(areal_run.recorder, tmp_path / "figures")
    assert [x.name for x in files] == ["lag.png", "steps.png", "in_flight.png", "lengths.png"]
    for file in files:
        assert size_of(file)[0] == 1200
    again = write_figures(areal_run.recorder, tmp_path / "again")
    assert [x.read_bytes() for x in again] == [x.read_bytes() for x in files]


def test_a_long_run_is_drawn_as_mean_and_range(tmp_path: Path) -> None:
    run = MadeUpRun("areal", steps=70, batch=8, in_flight=8, servers=2, median_tokens=300)
    assert steady_state(steps_of(run.recorder)).first_step >= 1
    for file in write_figures(run.recorder, tmp_path):
        size_of(file)


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "–"), (0.0, "0.0 %"), (0.0004, "<0.1 %"), (0.0994, "9.9 %"), (0.0996, "10 %")],
)
def test_percent(share: float | None, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(3, "3.0 s"), (90, "1.5 min"), (5400, "1.50 h"), (53_280, "14.8 h")]
)
def test_hours(seconds: int, text: str) -> None:
    assert hours(seconds * 10**9) == text
