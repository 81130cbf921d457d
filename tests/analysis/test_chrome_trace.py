"""The exported trace: the format's required keys, nothing lost, bounded."""

from __future__ import annotations

import gzip
import itertools
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from analysis.chrome_trace import choose_window, write_chrome_trace
from analysis.steps import steps_of
from tests.analysis.by_hand import recorder
from tests.analysis.made_up_run import MadeUpRun

REQUIRED = {
    "M": {"name", "ph", "pid", "tid", "args"},
    "X": {"name", "ph", "cat", "pid", "tid", "ts", "dur", "args"},
    "i": {"name", "ph", "cat", "pid", "tid", "ts", "s", "args"},
    "C": {"name", "ph", "pid", "ts", "args"},
}
"""Keys that "Trace Event Format" asks for, by phase; ``ts`` of metadata is ignored."""


def load(path: Path) -> dict[str, Any]:
    trace: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    assert set(trace) == {"displayTimeUnit", "otherData", "traceEvents"}
    assert trace["displayTimeUnit"] in ("ms", "ns")
    for event in trace["traceEvents"]:
        assert REQUIRED[event["ph"]] <= set(event)
        assert isinstance(event["pid"], int)
        assert isinstance(event["name"], str)
        assert isinstance(event["args"], dict)
        assert event["ts"] >= 0
        assert event.get("dur", 0) >= 0
        if event["ph"] == "i":
            assert event["s"] in ("g", "p", "t")
        if event["ph"] == "C":
            assert all(isinstance(x, (int, float)) for x in event["args"].values())
    named = {
        (event["pid"], event["tid"])
        for event in trace["traceEvents"]
        if event["name"] == "thread_name"
    }
    used = {(x["pid"], x["tid"]) for x in trace["traceEvents"] if x["ph"] in "Xi"}
    assert used <= named, "a thread without a name"
    return trace


@pytest.mark.parametrize("name", ["areal_run", "synchronous_run"])
def test_a_whole_run(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    run: MadeUpRun = request.getfixturevalue(name)
    trace = load(write_chrome_trace(run.recorder, tmp_path / "new" / "trace.json.gz"))
    assert trace["otherData"]["window"] == "the whole run"
    events = trace["traceEvents"]
    by_phase = defaultdict(list)
    for event in events:
        by_phase[event["ph"]].append(event)
    spans = len(run.recorder.server_spans) + len(run.recorder.trainer_spans)
    assert len(by_phase["X"]) == spans + run.facts.steps
    assert len(by_phase["i"]) == len(run.recorder.interrupts)
    threads = defaultdict(list)
    for event in by_phase["X"]:
        threads[event["pid"], event["tid"]].append((event["ts"], event["dur"]))
    assert len(threads) == run.facts.servers + 2
    for slices in threads.values():
        slices.sort()
        assert (sum(slices[-1])) * 1000 == pytest.approx(run.now_ns, rel=1e-12)
        for (ts, dur), (following, _) in itertools.pairwise(slices):
            # Times are written to the nanosecond in microseconds: floats round further down.
            assert ts + dur <= following + 1e-3
    tokens = sum(x["args"].get("generated_tokens", 0) for x in by_phase["X"] if x["pid"] == 1)
    assert tokens == run.recorder.server_spans["generated_tokens"].sum()
    counters = {x["name"] for x in by_phase["C"]}
    assert counters == {"rollouts in flight", "trajectories ready"}


def test_a_long_run_is_cut_to_a_window_of_whole_steps(tmp_path: Path) -> None:
    run = MadeUpRun("areal", steps=40, batch=8, in_flight=8, servers=2, median_tokens=300)
    path = write_chrome_trace(run.recorder, tmp_path / "trace.json.gz", max_events=200)
    trace = load(path)
    kept = [x for x in trace["traceEvents"] if x["ph"] in "Xi"]
    assert 100 < len(kept) <= 200
    window = choose_window(run.recorder, 200)
    ends = steps_of(run.recorder).end_ns.tolist()
    assert window.start_ns in ends
    assert window.end_ns in ends
    other = trace["otherData"]
    assert (other["window_start_ns"], other["window_end_ns"]) == (window.start_ns, window.end_ns)
    assert other["run_end_ns"] == run.now_ns
    assert "cut to 200 events" in other["window"]
    for most in range(100, 300, 17):
        assert choose_window(run.recorder, most).end_ns in ends
    instants = [x["ts"] for x in kept if x["ph"] == "i"]
    assert window.start_ns / 1000 <= min(instants) <= max(instants) <= window.end_ns / 1000


def test_a_step_too_long_for_the_bound_is_cut() -> None:
    made = recorder({0: [("idle", 10), ("load", 10)] * 50}, [("idle", 1000)])
    window = choose_window(made, 20)
    assert 0 == window.start_ns < window.end_ns < 1000


def test_the_same_run_gives_the_same_bytes(areal_run: MadeUpRun, tmp_path: Path) -> None:
    first, second = (write_chrome_trace(areal_run.recorder, tmp_path / x) for x in "ab")
    assert first.read_bytes() == second.read_bytes()
