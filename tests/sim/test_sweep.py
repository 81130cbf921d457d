"""Many simulations: each done once, kept, and not lost by Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from areal_sim.config import RunConfig, load_config
from areal_sim.memory import DoesNotFit
from areal_sim.pools import work as module
from areal_sim.rundir import simulate
from areal_sim.sweep import sweep

ROOT = Path(__file__).parents[2]
WALL = ("wall_s", "trajectories_per_wall_s", "realtime_factor", "journal_sha256")


def config(*changes: str) -> RunConfig:
    return load_config(ROOT / "configs" / "home-8gpu.toml", ["workload.steps=2", *changes])


def told(summary: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in summary.items() if key not in WALL}


def test_a_sweep_gives_what_single_runs_give_and_keeps_it(tmp_path: Path) -> None:
    configs = {"a": config(), "b": config("sim.seed=2"), "a again": config()}
    counts: list[tuple[int, int]] = []
    found = sweep(configs, cache=tmp_path, jobs=2, done=lambda *x: counts.append(x))
    assert counts == [(0, 2), (1, 2), (2, 2)] or counts == [(0, 2), (2, 2)]
    assert list(found) == list(configs)
    for name, one in configs.items():
        assert told(found[name]) == told(simulate(one, name=name).summary)
    assert found["a"]["name"] == "a"
    assert found["a again"]["name"] == "a again"

    counts.clear()
    assert sweep(configs, cache=tmp_path, done=lambda *x: counts.append(x)) == found
    assert counts == [(0, 0)], "nothing is simulated twice"


@pytest.mark.parametrize("text", ['{"name": "a", "st', "{}", "[]", ""])
def test_a_damaged_result_is_made_again(tmp_path: Path, text: str) -> None:
    before = sweep({"a": config()}, cache=tmp_path)
    [kept] = tmp_path.iterdir()
    kept.write_text(text)
    assert told(sweep({"a": config()}, cache=tmp_path)["a"]) == told(before["a"])
    assert json.loads(kept.read_text())


def test_what_was_finished_before_an_error_is_kept(tmp_path: Path) -> None:
    impossible = config("model.name=32b", "workload.steps=1")
    with pytest.raises(DoesNotFit, match="too much"):
        sweep({"a": config(), "b": impossible}, cache=tmp_path, jobs=1)
    assert len(list(tmp_path.glob("*.json"))) == 1


@pytest.mark.parametrize("jobs", [0, -1])
def test_no_processes(tmp_path: Path, jobs: int) -> None:
    with pytest.raises(ValueError, match=f"jobs = {jobs}"):
        sweep({"a": config()}, cache=tmp_path, jobs=jobs)


SWEEPER = """
import sys
from pathlib import Path
from areal_sim.config import load_config
from areal_sim.sweep import sweep

if __name__ == "__main__":
    root, cache = Path(sys.argv[1]), Path(sys.argv[2])
    base = root / "configs" / "home-8gpu.toml"
    configs = {
        str(n): load_config(base, [f"workload.steps={n}", f"sim.seed={n}"]) for n in (400, 3, 2)
    }
    sweep(configs, cache=cache, jobs=2, done=lambda done, wanted: print(done, flush=True))
"""


def _begun(tmp_path: Path) -> tuple[subprocess.Popen[str], Path]:
    """A sweep that has finished its short runs and is at its long one; and its cache."""
    script = tmp_path / "sweeper.py"
    script.write_text(SWEEPER)
    cache = tmp_path / "cache"
    process = subprocess.Popen(
        [sys.executable, str(script), str(ROOT), str(cache)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"
    assert process.stdout.readline() in ("1\n", "2\n")
    return process, cache


def test_ctrl_c_ends_all_processes_and_keeps_what_is_done(tmp_path: Path) -> None:
    process, cache = _begun(tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: everyone gets it
    _, stderr = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in stderr
    assert list(cache.glob("*.json")), "what was done is kept"
    assert not list(cache.glob("*.tmp"))
    until = time.monotonic() + 20
    while _group_lives(process.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _group_lives(process.pid)


@pytest.mark.parametrize("who", ["worker", "parent"])
def test_who_is_killed(tmp_path: Path, who: str) -> None:
    """A killed worker is an error in one line; workers of a killed parent end."""
    process, cache = _begun(tmp_path)
    workers = _children(process.pid, "spawn_main")
    assert workers
    if who == "worker":
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
    else:
        process.kill()
    _, stderr = process.communicate(timeout=60)
    if who == "worker":
        assert process.returncode == 1
        assert "SweepError: a process of the sweep was killed" in stderr
    assert list(cache.glob("*.json")), "what was done is kept"
    until = time.monotonic() + 20
    while _group_lives(process.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _group_lives(process.pid)


def _children(pid: int, what: str) -> list[int]:
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
        if what in Path(f"/proc/{child}/cmdline").read_text()
    ]


def test_an_interrupted_simulation_is_no_result(tmp_path: Path) -> None:
    """A worker does not listen to Ctrl-C, also where its parent was told not to."""
    script = tmp_path / "one.py"
    script.write_text(
        "import os, signal, sys, threading, time\n"
        "from areal_sim.config import load_config\n"
        "from areal_sim.rundir import simulate\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "config = load_config(sys.argv[1], ['workload.steps=60'])\n"
        "outcome = simulate(config, name='x')\n"
        "print(outcome.interrupted, outcome.summary['steps'])\n"
    )
    told = subprocess.run(
        [sys.executable, str(script), str(ROOT / "configs" / "home-8gpu.toml")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert told.stdout == "False 60\n", told.stderr


def test_what_a_result_depends_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A changed model is another key, as changed code is."""
    for package in ("areal_sched", "areal_sim", "traces", "analysis"):
        (tmp_path / package / "models").mkdir(parents=True)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "areal_sim" / "pools" / "work.py"))
    seen = set()
    for name, text in (("a.py", "x = 1"), ("models/a.json", "{}"), ("models/a.json", "[]")):
        (tmp_path / "areal_sim" / name).write_text(text)
        module.source_sha256.cache_clear()
        seen.add(module.source_sha256())
    module.source_sha256.cache_clear()
    assert len(seen) == 3


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
