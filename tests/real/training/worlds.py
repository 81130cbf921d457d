"""Settings of small trainers, and whether their processes are gone."""

from __future__ import annotations

import time
from pathlib import Path

from areal_real.training.settings import TrainerSettings
from tests.real.training import small

SETTINGS = TrainerSettings(
    **{**small.LONG, "held_versions": 2, "bucket_bytes": 20_000, "start_timeout_s": 180.0}
)
TWO_SETTINGS = TrainerSettings(
    **{**small.LONG, "data_parallel": 2, "distributed_optimizer": True, "start_timeout_s": 180.0}
)
DEAD_S = 20.0
"""Time for processes to be gone."""


def gone(pid: int) -> bool:
    """Whether a process ends soon; a zombie has ended."""
    until = time.monotonic() + DEAD_S
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.05)
    return False
