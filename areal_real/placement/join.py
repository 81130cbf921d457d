"""Joining a Ray cluster for the length of a run."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import socket
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from areal_real.config import RealConfig
from areal_real.folder import RunFolder
from areal_real.placement.on_ray import RayPlacement
from areal_real.placement.roles import Note
from areal_sched.errors import ConfigError

CONNECT_S = 5.0
"""The head of a cluster may take so long to accept a connection."""

STORE_BYTES = 100 * 2**20
"""Object store of a Ray of our own: nothing large goes through it, and Ray wants 75 MiB."""

_OWN = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Without it Ray warns that one day it will leave CUDA_VISIBLE_DEVICES alone.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class OnRay:
    """Places a run on a Ray cluster; a `areal_real.session.Placed`.

    Args:
        address: ``HOST:PORT`` of the cluster's head, or ``auto``. This machine has to be one of its
            nodes. None: what ``RAY_ADDRESS`` says, and without that a Ray of our own, which ends
            with the run.
        note: told where the run waits for room.
    """

    def __init__(self, address: str | None, note: Note) -> None:
        self._address = address
        self._note = note

    @contextlib.contextmanager
    def __call__(self, config: RealConfig, folder: RunFolder) -> Iterator[RayPlacement]:
        """For this run.

        Raises:
            ConfigError: no cluster, or it does not fit the configuration.
        """
        with joined(self._address, config) as ray:
            _check(ray, config)
            placement = RayPlacement(config, folder, self._note)
            try:
                yield placement
            finally:
                placement.close()


@contextlib.contextmanager
def joined(address: str | None, config: RealConfig) -> Iterator[Any]:
    """This process as a driver of a cluster.

    Raises:
        ConfigError: there is none, or it cannot be joined.
    """
    try:
        import ray
    except ImportError as exc:
        raise ConfigError(
            f"--engine ray: Ray cannot be imported ({exc}): pip install 'areal-lab[ray]', on every"
            " node"
        ) from None
    given = f"--address {address}"
    if address is None:
        address = os.environ.get("RAY_ADDRESS") or "local"
        given = "a Ray of our own" if address == "local" else f"RAY_ADDRESS={address}"
    with contextlib.ExitStack() as stack:
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address == "local":
            folder = tempfile.TemporaryDirectory(prefix="areal-", ignore_cleanup_errors=True)
            place = stack.enter_context(folder)
            stack.enter_context(_to_ourselves(ray, Path(place)))
            settings |= {
                "include_dashboard": False,
                "object_store_memory": STORE_BYTES,
                "_temp_dir": place,
            }
            if config.real.device == "cpu":
                # As without Ray: processes share the cores there are.
                settings["num_cpus"] = _threads(config)
        elif address != "auto":
            _knock(address, given)
        for name, value in _OWN.items():
            os.environ.setdefault(name, value)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what matters of them comes as an error
                ray.init(address=address, **settings)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as exc:
            lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
            told = " ".join(lines[:2])
            raise ConfigError(
                f"{given}: {told} (with Ray {ray.__version__}; a cluster that asks for a token, as"
                " newer ones do by themselves where ~/.ray/auth_token is there, wants"
                " RAY_AUTH_MODE=token and the same token here)"
            ) from None
        stack.callback(ray.shutdown)
        # Ray would print on our terminal what became of lost nodes, line after line. There is no
        # public switch; without this one, which its debugger uses, there would be noise and
        # nothing worse.
        if hasattr(ray._private.worker, "_worker_logs_enabled"):
            ray._private.worker._worker_logs_enabled = False
        yield ray


@contextlib.contextmanager
def _to_ourselves(ray: Any, folder: Path) -> Iterator[None]:
    """Let a Ray of our own listen on loopback alone, and ask for a token that we alone have.

    By itself it would listen on all addresses of the machine, except on Windows and macOS. There is
    no option for that but the variable that turns clusters on there.
    """
    path = folder / "token"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(_token())
    own = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": None,  # then Ray asks for a token; said by us, it would be heard too late
        "RAY_AUTH_TOKEN_PATH": str(path),
        "RAY_AUTH_TOKEN": None,  # would come before the file
    }
    before = {name: os.environ.get(name) for name in own}
    constants, name = ray._private.ray_constants, "ENABLE_RAY_CLUSTER"
    cluster = getattr(constants, name, True)  # read when Ray was imported
    _set(own)
    setattr(constants, name, False)
    try:
        yield
    finally:
        setattr(constants, name, cluster)
        _set(before)


@functools.cache
def _token() -> str:
    """Ray keeps the first one that it finds for as long as this process lives."""
    return secrets.token_hex(32)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _threads(config: RealConfig) -> int:
    server, trainer = config.real.server, config.real.trainer
    servers = server.most * server.tensor_parallel * server.threads
    return servers + trainer.world_size * trainer.threads


def _knock(address: str, given: str) -> None:
    """Make sure that something listens there: Ray would try for long."""
    host, _, port = address.rpartition(":")
    if "://" in address:
        raise ConfigError(
            f"{given}: a run has to be on a node of its cluster; HOST:PORT of the head is expected"
        )
    if not host or not port.isdigit():
        raise ConfigError(f"{given}: expected HOST:PORT of the cluster's head, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (OSError, OverflowError) as exc:
        raise ConfigError(f"{given}: cannot be reached: {exc}") from None


def _check(ray: Any, config: RealConfig) -> None:
    addresses = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if len(addresses) > 1 and config.real.listen == "loopback":
        raise ConfigError(
            f'real.listen = "loopback": the cluster has nodes at {len(addresses)} addresses'
            f" ({', '.join(sorted(addresses)[:3])}{', ...' if len(addresses) > 3 else ''}),"
            " which could not reach each other; --set real.listen=cluster lets servers and trainer"
            " listen there, and every request shows a token"
        )
