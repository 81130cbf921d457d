"""Simulations as Ray tasks: on a cluster that runs already, or on a Ray of this machine's own.

Ray is an extra of this project and is imported only when a sweep asks for it. A task whose worker
or node is lost is begun again elsewhere, which costs nothing but its own time, since a simulation
depends on its configuration alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from areal_sim.pools import NoPool, Summary, SweepError, Task
from areal_sim.pools.work import source_sha256

RETRIES = 3
"""How often a task is begun again after its worker or its node was lost."""

_AT_ONCE = 1000
"""Tasks handed to Ray at a time: each look for finished ones passes over all of them."""

_STORE_BYTES = 100 * 2**20
"""Object store of a Ray of our own. Summaries are some kilobytes, and Ray wants 75 MiB."""

_CONNECT_S = 5.0
"""How long the host of an address may take to accept a connection."""

_JOIN_S = 120.0
"""How long joining a cluster may take: a busy one starts a process for a client in half a minute.
By itself Ray tries for ever."""

_OWN = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Without it Ray warns that one day it will leave CUDA_VISIBLE_DEVICES alone.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # After the first error the others are let go, and Ray would print each.
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
}
"""What Ray is told by environment variables, where the user has not said otherwise."""

_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}

_PROBE = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False, logging_level=40)"


class RayPool:
    """Tasks of a Ray cluster; a `areal_sim.pools.Pool`.

    Args:
        address: of the cluster: ``HOST:PORT`` of its head where this machine is one of its nodes,
            ``ray://HOST:PORT`` of its client server where it is none, ``auto`` for the cluster this
            machine is a node of. By default what ``RAY_ADDRESS`` says, and without that a Ray of
            our own on this machine, which is stopped at the end. A Ray that this process is
            connected to already is used as it is.
        jobs: tasks at a time; all cores of the cluster by default.

    Raises:
        ValueError: `jobs` is below one.
    """

    def __init__(self, address: str | None = None, jobs: int | None = None) -> None:
        if jobs is not None and jobs < 1:
            raise ValueError(f"jobs = {jobs}: must be at least 1")
        self._address = address
        self._jobs = jobs

    def run(self, tasks: Sequence[Task], keep: Callable[[str, Summary], None]) -> None:
        """See `areal_sim.pools.Pool.run`."""
        ray = _imported()
        most = min(self._jobs or _AT_ONCE, _AT_ONCE)
        with _environment(_OWN), _connected(ray, self._address, self._jobs):
            remote = ray.remote(max_retries=RETRIES, num_cpus=1)(_worker_side())
            waiting, running = deque(tasks), dict[Any, str]()
            try:
                while waiting or running:
                    while waiting and len(running) < most:
                        task = waiting.popleft()
                        named = remote.options(name=f"simulate {task.name}")
                        payload = pickle.dumps((task.config, task.name))
                        running[named.remote(payload, source_sha256())] = task.name
                    [finished], _ = ray.wait(list(running), num_returns=1)
                    keep(running[finished], _result(ray, finished, running[finished]))
                    del running[finished]
            except BaseException:
                _leave(ray, running, keep)
                raise


def _imported() -> Any:
    try:
        import ray
    except ImportError as exc:
        raise NoPool(
            f"--engine ray: Ray cannot be imported ({exc}): pip install 'areal-lab[ray]', on every"
            " node"
        ) from None
    return ray


@contextlib.contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    ours = {key: value for key, value in settings.items() if key not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for key in ours:
            os.environ.pop(key, None)


@contextlib.contextmanager
def _connected(ray: Any, address: str | None, jobs: int | None) -> Iterator[None]:
    """Connect this process to a cluster, and at the end undo what was done."""
    if ray.is_initialized():
        if address is not None:
            raise NoPool(f"--address {address}: this process is connected to a Ray already")
        yield
        return
    given = f"--address {address}"
    if address is None:
        address = os.environ.get("RAY_ADDRESS") or "local"
        given = "a Ray of our own" if address == "local" else f"RAY_ADDRESS={address}"
    with contextlib.ExitStack() as stack:
        settings = dict(_QUIET)
        if address == "local":
            folder = tempfile.TemporaryDirectory(prefix="areal-", ignore_cleanup_errors=True)
            stack.enter_context(_on_loopback(ray))
            settings |= {
                "num_cpus": jobs,
                "num_gpus": 0,
                "include_dashboard": False,
                "object_store_memory": _STORE_BYTES,
                "_temp_dir": stack.enter_context(folder),
            }
        else:
            _reach(ray, address, given)
        stack.enter_context(_silence(ray))
        stack.callback(ray.shutdown)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what matters of them comes as an error
                ray.init(address=address, **settings)
        except (OSError, RuntimeError, ValueError) as exc:
            raise NoPool(f"{given}: {_one_line(exc)}") from None
        yield


@contextlib.contextmanager
def _on_loopback(ray: Any) -> Iterator[None]:
    """Let a Ray of our own listen on loopback alone.

    By itself it would listen on all addresses of the machine, except on Windows and macOS. There is
    no option for that but the variable that turns clusters on there.
    """
    constants, name = ray._private.ray_constants, "ENABLE_RAY_CLUSTER"
    before = getattr(constants, name, True)  # read when Ray was imported
    setattr(constants, name, False)
    try:
        with _environment({"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}):
            yield
    finally:
        setattr(constants, name, before)


@contextlib.contextmanager
def _silence(ray: Any) -> Iterator[None]:
    """Keep Ray from printing on our stdout what became of lost workers and nodes.

    `log_to_driver` leaves that out, and there is no public switch; without this one, which Ray's
    debugger uses, there would be noise and nothing worse.
    """
    inner, name = ray._private.worker, "_worker_logs_enabled"
    before = getattr(inner, name, True)
    setattr(inner, name, False)
    try:
        yield
    finally:
        setattr(inner, name, before)


def _reach(ray: Any, address: str, given: str) -> None:
    """Make sure that a cluster answers, within a bounded time.

    Ray itself would try for ever, and fill stderr. So its port is knocked at first, and then
    another process joins the cluster, which can be ended.
    """
    if address != "auto":
        try:
            place = urlsplit(address if "://" in address else f"ray://{address}")
            if place.scheme != "ray" or not place.hostname or place.port is None:
                raise ValueError
        except ValueError:
            raise NoPool(f"{given}: expected HOST:PORT, ray://HOST:PORT or auto") from None
        try:
            socket.create_connection((place.hostname, place.port), _CONNECT_S).close()
        except OSError as exc:
            raise NoPool(f"{given}: cannot be reached: {exc.strerror or exc}") from None
    command = [sys.executable, "-c", _PROBE, address]
    try:
        probe = subprocess.run(command, capture_output=True, text=True, timeout=_JOIN_S)
    except subprocess.TimeoutExpired:
        raise NoPool(
            f"{given}: no Ray cluster answered there in {_JOIN_S:.0f} s (the port of `ray start`"
            " is 6379 unless said otherwise; the client server's, 10001, is for ray://)"
        ) from None
    if probe.returncode:
        told = probe.stderr.strip().splitlines() or [f"exit code {probe.returncode}"]
        raise NoPool(f"{given}: {told[-1]} (with Ray {ray.__version__})")


def _worker_side() -> Callable[[bytes, str], tuple[str, Summary | None]]:
    """What a worker carries out.

    It is inside a function so that Ray sends its code and not its name: a node without this
    project can then say so.
    """

    def simulate(payload: bytes, expected: str) -> tuple[str, Summary | None]:
        import pickle
        import socket

        try:
            from areal_sim.pools.work import simulate_task, source_sha256
        except ImportError as exc:
            return f"{socket.gethostname()} lacks the code of this machine: {exc}", None
        if source_sha256() != expected:
            return f"{socket.gethostname()} has other code than this machine", None
        config, name = pickle.loads(payload)
        return "", simulate_task(config, name)

    return simulate


def _result(ray: Any, finished: Any, name: str) -> Summary:
    """The summary of a finished task."""
    try:
        problem, summary = ray.get(finished)
    except ray.exceptions.RayTaskError as exc:
        cause = exc.cause
        if isinstance(cause, Exception) and not isinstance(cause, ray.exceptions.RayError):
            raise cause from None
        raise SweepError(f"{name}: {_one_line(exc)}") from None
    except ray.exceptions.RayError as exc:
        # The worker's process or its node was lost, or its memory ran out.
        raise SweepError(
            f"{name}: its Ray task was lost {RETRIES + 1} times ({type(exc).__name__}); what was"
            " finished is kept"
        ) from None
    if summary is None:
        raise SweepError(
            f"{name}: node {problem}; install the same version of areal-lab on every node"
        )
    found: Summary = summary
    return found


def _leave(ray: Any, running: dict[Any, str], keep: Callable[[str, Summary], None]) -> None:
    """Keep what is finished and cancel the rest."""
    # Where the cluster is gone there is nothing to fetch and nothing to cancel.
    with contextlib.suppress(Exception):
        finished, others = ray.wait(list(running), num_returns=len(running), timeout=0)
        for each in others:
            ray.cancel(each, force=True)
        for each in finished:
            with contextlib.suppress(Exception):
                keep(running[each], _result(ray, each, running[each]))


def _one_line(exc: Exception) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(exc).__name__
