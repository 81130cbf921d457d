from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks import soak
from benchmarks.soak_samples import OTHER, SHARED_MEMORY, Sampler, bytes_below, part_of

MB = 1 << 20

CHILD = """
    import mmap, os, subprocess, sys
    run, temporary, shared = sys.argv[1:]
    wait = "import time; print(flush=True); time.sleep(100)"
    other = subprocess.Popen([sys.executable, "-c", wait, "areal_real.rewards.worker"],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    other.stdout.readline()  # before, its command line may still be ours, or none
    print("ready", flush=True)
    input()
    memory = bytearray(os.urandom(40 << 20))
    files = [open(os.devnull) for _ in range(25)]
    with open(shared, "wb+") as file:
        file.truncate(3 << 20)
        mapped = mmap.mmap(file.fileno(), 3 << 20)
    os.makedirs(run + "/logs/deep")
    open(run + "/logs/deep/x", "wb").write(bytes(1000))
    open(run + "/trajectories.sqlite-wal", "wb").write(bytes(300))
    open(run + "/trajectories.sqlite", "wb").write(bytes(200))
    open(run + "/mine", "wb").write(bytes(50))
    open(temporary + "/kept", "wb").write(bytes(70))
    print("grown", flush=True)
    input()
    sys.exit()  # the other one stays behind
"""


@contextlib.contextmanager
def child(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def say(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_real_process_is_seen_to_grow_and_to_leave_things_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "END_S", 1.0)
    run, temporary = tmp_path / "run", tmp_path / "temporary"
    temporary.mkdir()
    shared = SHARED_MEMORY / f"areal-soak-test-{os.getpid()}"
    try:
        with child(str(run), str(temporary), str(shared)) as process:
            assert hear(process) == "ready"
            sampler = Sampler(process.pid, run, temporary)
            before = sampler.take(0)
            assert set(before.processes) == {"controller", "reward worker 0"}
            assert set(before.disk_bytes.values()) == {0}
            say(process)
            assert hear(process) == "grown"
            after = sampler.take(1)
            then, now = before.processes["controller"], after.processes["controller"]
            for field in ("own_bytes", "rss_bytes", "uss_bytes", "pss_bytes"):
                assert getattr(now, field) - getattr(then, field) > 39 * MB
            assert now.fds - then.fds == 26  # 25, and the mapping's own
            assert now.threads == 1
            assert after.disk_bytes["shared memory"] == 3 * MB
            assert after.disk_bytes["logs"] == 1000
            assert after.disk_bytes["trajectory store"] == 500
            assert after.disk_bytes["other files"] == 50
            assert after.disk_bytes["temporary files"] == 70
            assert set(after.processes) == set(before.processes)

            orphan = psutil.Process(sampler.alive()["reward worker 0"])
            say(process)
            process.wait(10)
            left = soak.left_behind(sampler, temporary)
            assert left == ["process reward worker 0", str(shared), "temporary kept"]
            psutil.wait_procs([orphan], timeout=10)
            assert not orphan.is_running()
    finally:
        shared.unlink(missing_ok=True)


def test_parts_are_known_by_their_command_lines() -> None:
    assert part_of(["python", "-u", "-m", "areal_real.training.worker"]) == "trainer rank"
    assert part_of(["sglang::scheduler", "", ""]) == "server scheduler"
    assert part_of(["python", "/x/areal_real/serving/cpu_launcher.py", "--port"]) == "server HTTP"
    assert part_of(["ray::ServerActor.start"]) == "Ray actor"
    assert part_of(["vim"]) == OTHER


def test_bytes_below_counts_each_file_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(bytes(10))
    (tmp_path / "y").write_bytes(bytes(5))
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    link = (tmp_path / "a" / "up").lstat().st_size
    assert bytes_below(tmp_path) == 15 + link
    assert bytes_below(tmp_path / "none") == 0


STEPPING = """
    import pathlib, signal, sys, time
    run = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
    run.mkdir(parents=True)
    stop = []
    signal.signal(signal.SIGINT, lambda *_: stop.append(1))
    with (run / "metrics.jsonl").open("w") as file:
        for step in range(1, 1000):
            file.write("{}\\n")
            file.flush()
            time.sleep(0.15)
            if stop:
                sys.exit(130)
"""


def test_steps_are_sampled_and_ctrl_c_ends_the_run_in_good_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that only counts steps, to be there soon and interrupted at will."""
    program = tmp_path / "steps.py"
    program.write_text(textwrap.dedent(STEPPING))
    monkeypatch.setattr(
        soak,
        "command_of",
        lambda args: [sys.executable, str(program), "--out", str(args.out / "run")],
    )

    def interrupt() -> None:
        metrics = tmp_path / "out" / "run" / "metrics.jsonl"
        while not (metrics.exists() and metrics.read_text().count("\n") >= 70):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    out = tmp_path / "out"
    arguments = ["--out", str(out), "--quiet", "--warm-up", "5"]
    assert soak.main(arguments) == 130
    seen = [each.step for each in soak.read_samples(out / "samples.jsonl")]
    assert seen == sorted(seen)
    assert len(set(seen)) > 30  # on a busy machine two steps may come between two looks
    assert "controller" in capsys.readouterr().out
    assert (out / "soak.png").exists()
