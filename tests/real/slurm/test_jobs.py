"""What a job does when its training ends in this way or that, on a real SLURM.

The training is a stand-in here (`stand_in`), since a real one cannot be asked to fail or to hang;
the script, sbatch, signals, time limit and requeueing are real. All jobs are submitted at once, and
each test waits for its own.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.house.repo import ROOT
from tests.real.slurm.cluster import Cluster

pytestmark = pytest.mark.slow

CONFIG = ROOT / "configs" / "real" / "tiny-cpu.toml"
HOSTILE = "a \"b\" 'c' $HOME `id` \\ #d %j; touch areal-hostile"
PATIENCE_S = 120.0

WAITS = {"waits": "for the signal", "checkpoint": 5, "exit": 130}
PLANS: dict[str, tuple[Sequence[str], list[dict[str, Any]]]] = {
    "stubborn, then done": (
        ("--time", "1", "--checkpoint-before", "10"),
        [{"waits": "for ever", "exit": 0}, {"exit": 0}],
    ),
    "done": (("--job-name", HOSTILE, "--name", HOSTILE, "--set", "limits.eta=4"), [{"exit": 0}]),
    "bad input": ((), [{"exit": 2}]),
    "fails": (("--give-up-after", "2"), [{"exit": 1}, {"exit": 1}]),
    "fails, and gets on": (
        ("--give-up-after", "1"),
        [{"checkpoint": 1, "exit": 1}, {"checkpoint": 2, "exit": 1}, {"exit": 0}],
    ),
    "preempted": ((), [WAITS, {"exit": 0}]),
    "killed": ((), [WAITS, {"exit": 0}]),
    "cancelled": ((), [WAITS]),
    "not again": (("--no-requeue",), [WAITS]),
    "by hand": ((), [{"exit": 130}]),
}


@dataclass
class Job:
    """A submitted one."""

    slurm: Cluster
    number: str
    out: Path

    @property
    def log(self) -> Path:
        return self.out.with_name(self.out.name + ".slurm") / f"{self.number}.out"

    @property
    def calls(self) -> list[dict[str, Any]]:
        path = self.out.with_name(self.out.name + ".calls.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]

    def until_it_trains(self) -> None:
        mark = self.out.with_name(self.out.name + ".running")
        self.slurm.until(mark.exists, PATIENCE_S, self.log)

    def end(self) -> tuple[str, str, int]:
        """State, exit code and restarts, once it has ended."""
        self.slurm.until(lambda: self.slurm.ended(self.number) != "", PATIENCE_S, self.log)
        state, code, restarts = (
            self.slurm.field(self.number, x) for x in ("JobState", "ExitCode", "Restarts")
        )
        return state, code, int(restarts)


def launch(
    slurm: Cluster, folder: Path, plan: list[dict[str, Any]], *options: str
) -> subprocess.CompletedProcess[str]:
    """Submit a job whose training is played."""
    folder.mkdir()
    python = folder / "python"
    python.write_text(
        f'#!/bin/sh\nexec {sys.executable} {Path(__file__).parent}/stand_in.py "$@"\n'
    )
    python.chmod(0o755)
    (folder / "run.plan.json").write_text(json.dumps(plan))
    return submit(slurm, folder, *options)


def submit(slurm: Cluster, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The command that a user would give, and give again."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "areal_real.cli", "launch", str(CONFIG), "--engine", "slurm"),
            *("--out", str(folder / "run"), "--python", str(folder / "python"), *options),
        ],
        cwd=ROOT,
        env=slurm.environment,
        capture_output=True,
        text=True,
        check=False,
    )


def number_of(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stderr.split()[1]


@pytest.fixture(scope="module")
def jobs(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    base = tmp_path_factory.mktemp("jobs")
    made = {}
    for name, (options, plan) in PLANS.items():
        folder = base / name.replace(" ", "-")
        number = number_of(launch(slurm, folder, plan, "--run-with", "local", *options))
        made[name] = Job(slurm, number, folder / "run")
    return made


def test_a_complete_run_ends_the_job_whatever_its_name(jobs: dict[str, Job]) -> None:
    job = jobs["done"]
    assert job.end() == ("COMPLETED", "0:0", 0)
    assert f" JobName={HOSTILE} " in job.slurm.call("scontrol", "show", "job", "-o", job.number)
    (call,) = job.calls
    assert call["words"] == [
        *(str(CONFIG), "--resume-if-there", "--set", "limits.eta=4", "--name", HOSTILE),
        *("--out", str(job.out)),
    ]
    assert not (ROOT / "areal-hostile").exists()


def test_bad_input_is_not_tried_again(jobs: dict[str, Job]) -> None:
    assert jobs["bad input"].end() == ("FAILED", "2:0", 0)


def test_failures_without_a_new_checkpoint_are_given_up(jobs: dict[str, Job]) -> None:
    job = jobs["fails"]
    assert job.end() == ("FAILED", "1:0", 1)
    assert "2 attempts in a row brought no new checkpoint" in job.log.read_text()


def test_failures_with_new_checkpoints_are_not(jobs: dict[str, Job]) -> None:
    job = jobs["fails, and gets on"]
    assert job.end() == ("COMPLETED", "0:0", 2)
    assert [call["attempt"] for call in job.calls] == [0, 1, 2]


def test_a_preempted_job_makes_a_checkpoint_and_goes_on(jobs: dict[str, Job]) -> None:
    job = jobs["preempted"]
    job.until_it_trains()
    job.slurm.call("scancel", "--batch", "--signal=TERM", job.number)
    assert job.end() == ("COMPLETED", "0:0", 1)
    assert "queued again" in job.log.read_text()


def test_after_a_kill_without_notice_the_same_command_goes_on(jobs: dict[str, Job]) -> None:
    job = jobs["killed"]
    job.until_it_trains()
    job.slurm.call("scancel", "--batch", "--signal=KILL", job.number)
    state, _, restarts = job.end()
    assert state != "COMPLETED"
    assert restarts == 0
    again = number_of(submit(job.slurm, job.out.parent, "--run-with", "local"))
    assert Job(job.slurm, again, job.out).end() == ("COMPLETED", "0:0", 0)
    assert [call["attempt"] for call in job.calls][-1] == 1


def test_a_cancelled_job_does_not_come_back(jobs: dict[str, Job]) -> None:
    job = jobs["cancelled"]
    job.until_it_trains()
    job.slurm.call("scancel", job.number)
    state, _, restarts = job.end()
    assert (state, restarts) == ("CANCELLED", 0)
    job.slurm.until(lambda: "SLURM is ending the job" in job.log.read_text(), 30, job.log)
    assert "queued again" not in job.log.read_text()


def test_a_job_that_may_not_queue_again_says_how_to_go_on(jobs: dict[str, Job]) -> None:
    job = jobs["not again"]
    job.until_it_trains()
    job.slurm.call("scancel", "--batch", "--signal=USR1", job.number)
    assert job.end() == ("FAILED", "130:0", 0)
    assert "the same areal-real launch goes on" in job.log.read_text()


def test_a_training_that_is_interrupted_by_hand_is_left_alone(jobs: dict[str, Job]) -> None:
    assert jobs["by hand"].end() == ("FAILED", "130:0", 0)


def test_a_step_that_outlasts_the_notice_is_killed_and_the_job_goes_on(
    jobs: dict[str, Job],
) -> None:
    # Nobody sends a signal here: SLURM itself does, before the limit of one minute.
    job = jobs["stubborn, then done"]
    assert job.end() == ("COMPLETED", "0:0", 1)
    text = job.log.read_text()
    assert "the time limit is near: ending after the step in progress" in text
    assert "what came after the last checkpoint is lost" in text


def test_each_task_of_an_array_queues_again_by_itself(slurm: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "array"
    (folder / "run").mkdir(parents=True)
    for seed in (1, 2, 3):
        plan = [{"exit": 0}] if seed == 2 else [{**WAITS, "checkpoint": seed}, {"exit": 0}]
        (folder / "run" / f"seed-{seed}.plan.json").write_text(json.dumps(plan))
    (folder / "run").rename(tmp_path / "plans")
    folder.rmdir()
    options = ("--run-with", "local", "--array", "1-3")
    # The stand-in's plans lie in DIR, which launch must find empty.
    number = number_of(launch(slurm, folder, [], *options, "--sbatch", "hold"))
    (tmp_path / "plans").rename(folder / "run")
    slurm.call("scontrol", "release", number)
    tasks = {}
    for seed in (1, 2, 3):
        tasks[seed] = Job(slurm, f"{number}_{seed}", folder / "run" / f"seed-{seed}")
        log = folder / "run.slurm" / f"{number}_{seed}.out"
        if seed == 2:
            continue
        slurm.until((folder / "run" / f"seed-{seed}.running").exists, PATIENCE_S, log)
        slurm.call("scancel", "--batch", "--signal=USR1", f"{number}_{seed}")
    assert {seed: task.end() for seed, task in tasks.items()} == {
        1: ("COMPLETED", "0:0", 1),
        2: ("COMPLETED", "0:0", 0),
        3: ("COMPLETED", "0:0", 1),
    }
    for seed, task in tasks.items():
        words = task.calls[0]["words"]
        assert words[words.index("--seed") + 1] == str(seed)


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray")
def test_the_job_starts_a_ray_cluster_of_its_own_and_ends_it(
    slurm: Cluster, tmp_path: Path
) -> None:
    options = ("--nodes", "2", "--set", "real.listen=cluster", "--give-up-after", "1")
    # Short: Ray makes Unix sockets in it, whose paths have at most 107 bytes.
    temporary = slurm.folder / "ray"
    temporary.mkdir()
    slurm.environment["TMPDIR"] = str(temporary)
    done = launch(slurm, tmp_path / "ray", [{"ray": True, "exit": 0}], *options, "--wait")
    del slurm.environment["TMPDIR"]
    assert done.returncode == 0, done.stdout + done.stderr
    (call,) = Job(slurm, "", tmp_path / "ray" / "run").calls
    assert len(call["nodes"]) == 2
    assert call["token_mode"] == 0o600
    assert call["folder_modes"] == [0o700, 0o700]
    assert call["without_token"] is False
    assert call["words"][-4:-1] == ["--engine", "ray", "--address"]
    assert list((tmp_path / "ray" / "run.slurm").glob("ray-token-*")) == []
    assert list(temporary.glob("ray-*")) == [], "each node removes its folder"


def test_waiting_shows_the_log_and_the_end(slurm: Cluster, tmp_path: Path) -> None:
    options = ("--run-with", "local", "--wait", "--give-up-after", "1")
    done = launch(slurm, tmp_path / "good", [{"exit": 0}], *options)
    assert done.returncode == 0, done.stderr
    assert "training, attempt 0" in done.stdout
    assert "the run is complete" in done.stdout
    assert "COMPLETED" in done.stderr
    done = launch(slurm, tmp_path / "bad", [{"exit": 1}], *options)
    assert done.returncode == 1
    assert "ended: FAILED, exit code 1:0" in done.stderr


def test_sbatchs_own_refusal_is_shown(slurm: Cluster, tmp_path: Path) -> None:
    done = launch(slurm, tmp_path / "x", [], "--run-with", "local", "--partition", "nowhere")
    assert done.returncode == 1
    assert "sbatch refused" in done.stderr
    assert "nowhere" in done.stderr or "partition" in done.stderr
