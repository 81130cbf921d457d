"""How one process of a trainer is called, and what its log says in the end. Imports no torch."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import areal_real
from areal_real.interfaces import variables_of
from areal_real.placement.roles import Contact
from areal_real.serving.options import is_loopback
from areal_real.training.control import (
    HOST_VARIABLE,
    LISTEN_VARIABLE,
    PARENT_VARIABLE,
    PORT_VARIABLE,
    SETTINGS_VARIABLE,
    STORE_VARIABLE,
    TOKEN_VARIABLE,
)
from areal_real.training.settings import TrainerSettings

LOG_LINES = 25
LOG_LINE_CHARACTERS = 300
"""How much of the log an error shows."""

COMMAND = (sys.executable, "-m", "areal_real.training.worker")
"""The command line."""


def environment(
    settings: TrainerSettings,
    contact: Contact,
    *,
    rank: int,
    local_rank: int,
    store: tuple[str, int],
    listen: str,
    gpus: Sequence[str] | None,
) -> dict[str, str]:
    """The environment of a process, on the machine that it is started on.

    Args:
        settings: the trainer's.
        contact: where the run listens; only rank 0 is told the token.
        rank: of all.
        local_rank: of those that see the same GPUs.
        store: address and port where the processes meet; rank 0 listens there.
        listen: address of this machine that it may listen on.
        gpus: of this machine, that the trainer may use; None: all that can be seen.
    """
    path = [str(Path(areal_real.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    variables = {
        **variables_of(listen),
        "CUDA_DEVICE_MAX_CONNECTIONS": "1",  # Megatron's collectives are to overlap in order
        **os.environ,
        SETTINGS_VARIABLE: json.dumps(settings.to_json()),
        STORE_VARIABLE: f"{store[0]} {store[1]}",
        LISTEN_VARIABLE: listen,
        PARENT_VARIABLE: str(os.getpid()),
        "RANK": str(rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(settings.processes),
        "OMP_NUM_THREADS": str(settings.threads),
        "PYTHONWARNINGS": "ignore",  # Megatron warns of every library that is not there
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
    }
    if is_loopback(listen):  # whatever a cluster's environment says of its network
        variables |= variables_of(listen)
    if rank == 0:
        variables[HOST_VARIABLE] = contact.host
        variables[PORT_VARIABLE] = str(contact.port)
        variables[TOKEN_VARIABLE] = contact.token
    if gpus is not None:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    return variables


def end_of_log(path: Path) -> str:
    """The last lines of a log, for an error message."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return f"it has printed nothing: there is no {path}"
    except OSError as exc:
        return f"{path}: {exc.strerror}"
    text = "\n".join(f"    {line[:LOG_LINE_CHARACTERS]}" for line in lines[-LOG_LINES:])
    return f"last lines of {path}:\n{text}"
