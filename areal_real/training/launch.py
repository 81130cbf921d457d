"""How torchrun is called for a trainer on this host, and what its log says in the end.

Imports no torch.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import areal_real
from areal_real.training.control import PORT_VARIABLE, SETTINGS_VARIABLE, TOKEN_VARIABLE
from areal_real.training.settings import TrainerSettings

LOG_LINES = 25
LOG_LINE_CHARACTERS = 300
"""How much of the log an error shows."""


def command(settings: TrainerSettings) -> list[str]:
    """The command line."""
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={settings.processes}",
        "-m",
        "areal_real.training.worker",
    ]


def environment(
    settings: TrainerSettings, port: int, token: str, gpus: Sequence[int] | None
) -> dict[str, str]:
    """The environment of torchrun and its processes.

    Args:
        settings: the trainer's.
        port: of this host, where the run listens.
        token: that rank 0 has to name there.
        gpus: that the trainer may use; None: all.
    """
    path = [str(Path(areal_real.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    variables = {
        "GLOO_SOCKET_IFNAME": "lo",
        "CUDA_DEVICE_MAX_CONNECTIONS": "1",  # Megatron's collectives are to overlap in order
        **os.environ,
        PORT_VARIABLE: str(port),
        TOKEN_VARIABLE: token,
        SETTINGS_VARIABLE: json.dumps(settings.to_json()),
        "OMP_NUM_THREADS": str(settings.threads),
        "PYTHONWARNINGS": "ignore",  # Megatron warns of every library that is not there
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
    }
    if gpus is not None:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
    return variables


def end_of_log(path: Path) -> str:
    """The last lines of a log, for an error message."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as exc:
        return f"{path}: {exc.strerror}"
    last = _without_torchrun(lines)[-LOG_LINES:]
    text = "\n".join(f"    {line[:LOG_LINE_CHARACTERS]}" for line in last)
    return f"last lines of {path}:\n{text}"


def _without_torchrun(lines: list[str]) -> list[str]:
    """Leave out torchrun's own traceback, which hides that of the process it tells of."""
    starts = [i for i, line in enumerate(lines) if line.startswith("Traceback (most recent")]
    if not starts or not any("torch/distributed/run.py" in line for line in lines[starts[-1] :]):
        return lines
    ends = [i for i in range(starts[-1], len(lines)) if "ChildFailedError" in lines[i]]
    return lines[: starts[-1]] + lines[ends[0] :] if ends else lines
