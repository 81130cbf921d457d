"""Actors and placement groups of Ray, as a run asks for them."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from areal_real.errors import BackendError
from areal_real.placement.node_side import NodeActor, Site, boot_id

END_S = 10.0
"""An actor may take so long to end its process in good order."""

_CLOCK_TRIES = 5

Resources = Mapping[str, float]
"""Of one process, as Ray names them: ``CPU``, ``GPU``."""


def new_group(bundles: Sequence[Resources], name: str) -> Any:
    """Ask for room: a bundle of resources for each process, on as few nodes as possible."""
    from ray.util import placement_group

    # One that is being removed still has its name.
    unique = f"{name}-{uuid.uuid4().hex[:8]}"
    return placement_group([dict(x) for x in bundles], strategy="PACK", name=unique)


def remove_group(group: Any) -> None:
    """Give room back, with whatever still runs in it."""
    from ray.util import remove_placement_group

    with contextlib.suppress(Exception):  # gone with its cluster, or already
        remove_placement_group(group)


def new_actor(
    kind: type[NodeActor], site: Site, group: Any, bundle: int, resources: Resources
) -> Any:
    """Start an actor in a bundle of a placement group; it may take its time."""
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)
    return (
        ray.remote(kind)
        .options(
            num_cpus=resources["CPU"],
            num_gpus=resources.get("GPU", 0),
            scheduling_strategy=strategy,
            max_restarts=0,  # the run decides what becomes of a lost process
            # The cluster's store keeps 4 kB of each call, of 100,000 calls at most, and each actor
            # is asked five times a second after its process.
            enable_task_events=False,
        )
        .remote(site)
    )


async def answer(reference: Awaitable[Any]) -> Any:
    """What an actor answers.

    Raises:
        BackendError: as the actor raised it, or it is lost.
    """
    import ray

    try:
        return await reference
    except ray.exceptions.RayTaskError as exc:
        if isinstance(exc.cause, BackendError):
            raise exc.cause from None
        raise BackendError(words(exc)) from exc
    except ray.exceptions.RayError as exc:
        raise BackendError(words(exc)) from exc


async def clock_ahead_ns(actor: Any) -> int:
    """How far an actor's monotonic clock is ahead of ours, by the quickest of some answers."""
    best: tuple[int, int] | None = None
    for _ in range(_CLOCK_TRIES):
        asked_ns = time.monotonic_ns()
        boot, there_ns = await answer(actor.clock.remote())
        answered_ns = time.monotonic_ns()
        if boot == boot_id():
            return 0
        took_ns = answered_ns - asked_ns
        if best is None or took_ns < best[0]:
            best = took_ns, there_ns - (asked_ns + answered_ns) // 2
    assert best is not None
    return best[1]


async def end_actor(actor: Any, how: str) -> None:
    """Let an actor end its process, then end the actor, whatever state it is in."""
    import ray

    with contextlib.suppress(Exception):
        async with asyncio.timeout(END_S):
            await getattr(actor, how).remote()
    with contextlib.suppress(Exception):
        ray.kill(actor)


def words(exc: BaseException) -> str:
    """The first line of an error that says something, with its name."""
    cause = getattr(exc, "cause", None)
    if isinstance(cause, BaseException):
        exc = cause
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return f"{type(exc).__name__}: {lines[0]}"[:300] if lines else type(exc).__name__
