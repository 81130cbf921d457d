"""What the tests of the command line share."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from areal_sim.cli import main

ROOT = Path(__file__).resolve().parents[2]

SMALL = """\
[cluster]
nodes = 1
gpus_per_node = 4
generation_share = 0.5

[model]
name = "1.5b"

[workload]
prompts_per_step = 4
group_size = 2
max_prompt_tokens = 256
max_response_tokens = 1024
steps = 6

[workload.length]
mu = 5.5
sigma_between = 0.5
sigma_within = 0.5

[limits]
eta = 2
max_rollouts_in_flight = 16
"""
"""AReaL on four GPUs for six steps of eight: a tenth of a second."""


@dataclass(frozen=True)
class Said:
    """What a command line came to: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


def say(capsys: pytest.CaptureFixture[str], *arguments: object) -> Said:
    """Carry out a command line in this process."""
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return Said(code, out, err)


def command(*arguments: object) -> list[str]:
    """The same as a command of its own."""
    return [sys.executable, "-m", "areal_sim.cli", *map(str, arguments)]


def spawn(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Carry out a command line in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "AREAL_SCHED_FREEZE"}
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def config(folder: Path, text: str = SMALL, name: str = "small.toml") -> Path:
    """A configuration file."""
    path = folder / name
    path.write_text(text)
    return path


def tree(folder: Path) -> dict[str, int]:
    """Everything below a folder, with sizes."""
    return {str(p.relative_to(folder)): p.stat().st_size for p in sorted(folder.rglob("*"))}
