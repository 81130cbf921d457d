"""The banned-API rules: what is banned, where, and that the message says what to use instead."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache

import pytest

from tests.house.repo import ROOT

EVERYWHERE = ["import torch", "from torch import nn", "import sglang", "import megatron.core"]
IN_THE_SCHEDULER = [
    "import asyncio",
    "import datetime",
    "import numpy",
    "import random",
    "import simpy",
    "import threading",
    "import time",
    "from concurrent.futures import ThreadPoolExecutor",
    "from datetime import datetime",
    "from random import Random",
    "from time import monotonic",
    "from time import perf_counter_ns",
]


@cache
def bans(file_name: str, line: str) -> tuple[str, ...]:
    """Returns the banned-API messages ruff has for a file of that name with that line."""
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "json"]
    result = subprocess.run(
        [*command, "--stdin-filename", file_name, "-"],
        input=f"{line}\n",
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode in (0, 1), result.stderr
    found = json.loads(result.stdout)
    return tuple(entry["message"] for entry in found if entry["code"] == "TID251")


@pytest.mark.parametrize("line", EVERYWHERE)
@pytest.mark.parametrize(
    "package", ["analysis", "areal_sched", "areal_sim", "benchmarks", "traces"]
)
def test_the_real_back_ends_are_banned_outside_areal_real(package: str, line: str) -> None:
    (message,) = bans(f"{package}/made_up.py", line)
    assert message.count(":") >= 1, "the message names the ban and what to do instead"


@pytest.mark.parametrize("line", EVERYWHERE)
def test_the_real_back_ends_are_allowed_in_areal_real(line: str) -> None:
    assert bans("areal_real/made_up.py", line) == ()


@pytest.mark.parametrize("line", IN_THE_SCHEDULER)
@pytest.mark.parametrize("file_name", ["areal_sched/made_up.py", "areal_sched/schedulers/new.py"])
def test_clocks_chance_and_threads_are_banned_in_the_scheduler(file_name: str, line: str) -> None:
    (message,) = bans(file_name, line)
    assert "areal_sched" in message


@pytest.mark.parametrize("line", IN_THE_SCHEDULER)
def test_they_are_allowed_in_the_simulator(line: str) -> None:
    assert bans("areal_sim/made_up.py", line) == ()


def test_global_randomness_is_banned_in_the_simulator() -> None:
    (message,) = bans("areal_sim/made_up.py", "import numpy as np\nnp.random.seed(1)")
    assert "default_rng" in message
