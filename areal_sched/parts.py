"""Parts that schedulers are built from: starting, resuming, training, updating weights.

Each is a generator of commands over the live view, so a scheduler says ``yield from``. A part
asks the view again after every command, hence it never plans on stale counts.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import Literal, TypeAlias

from areal_sched.commands import (
    AbortRollouts,
    Command,
    DropRollouts,
    LoadWeights,
    ResumeRollouts,
    StartRollouts,
    StartTrainStep,
    UpdateMode,
)
from areal_sched.errors import ConfigError, nearest
from areal_sched.events import (
    Event,
    RolloutsInterrupted,
    ServerJoined,
    ServerLost,
    TrainerReady,
    TrainStepFinished,
    WeightsLoaded,
)
from areal_sched.ids import RolloutId, ServerId, WeightVersion
from areal_sched.records import Phase, Rollout
from areal_sched.routing import Router
from areal_sched.view import ClusterView

Unit: TypeAlias = Literal["rollout", "group"]
"""What is admitted and consumed at a time. ``group``: all rollouts of a prompt start together,
count as in flight until the last has its reward, and are trained in one step."""

UNITS = ("rollout", "group")
MODES = ("interrupt", "in_place", "drain")


def one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    """Check an option of a scheduler.

    Raises:
        ConfigError: the value is none of the known ones.
    """
    if value not in known:
        raise ConfigError(f"scheduler.{option} = {value!r}{nearest(value, known)}")


def at_least(option: str, value: object, least: float) -> None:
    """Check an option of a scheduler that is a number.

    Raises:
        ConfigError: the value is no finite number, or below the least.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and least <= value < math.inf):  # type: ignore[operator]
        raise ConfigError(f"scheduler.{option} = {value!r}: expected a number >= {least}")


def whole(option: str, value: object, least: int) -> None:
    """Check an option of a scheduler that is a whole number.

    Raises:
        ConfigError: the value is none, or below the least.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"scheduler.{option} = {value!r}: expected a whole number >= {least}")


def flag(option: str, value: object) -> None:
    """Check an option of a scheduler that is true or false.

    Raises:
        ConfigError: the value is neither.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"scheduler.{option} = {value!r}: expected true or false")


def start(
    view: ClusterView, route: Router, unit: Unit, most: int | None = None
) -> Iterable[Command]:
    """Start pending rollouts, in order, as many as the limits (and `most`) allow.

    With unit ``group`` a new group starts whole or not at all, while fewer than
    ``max_rollouts_in_flight / group_size`` groups are open; replacements of failed rollouts start
    at once.
    """
    if unit == "rollout":
        return start_rollouts(view, route, most)
    return start_groups(view, route, most)


def start_rollouts(view: ClusterView, route: Router, most: int | None = None) -> Iterable[Command]:
    """Start pending rollouts one by one: `start` with unit ``rollout``."""
    free = view.may_start()
    if most is not None and most < free:
        free = most
    if free != 1:
        return _start_rollouts(view, route, free) if free > 0 else ()
    # By far the most frequent case, a place that has just become free: no generator for it.
    pending = view.pending
    server_id = route(view) if pending else None
    if server_id is None:
        return ()
    return (
        StartRollouts(
            group_id=next(iter(pending)),
            rollout_ids=(view.next_rollout_id,),
            server_id=server_id,
        ),
    )


def _start_rollouts(view: ClusterView, route: Router, free: int) -> Iterator[Command]:
    pending = view.pending
    while free > 0 and pending:
        server_id = route(view)
        if server_id is None:
            return
        yield StartRollouts(
            group_id=next(iter(pending)),
            rollout_ids=(view.next_rollout_id,),
            server_id=server_id,
        )
        free -= 1


def start_groups(view: ClusterView, route: Router, most: int | None = None) -> Iterator[Command]:
    """Start pending groups, each whole or not at all: `start` with unit ``group``."""
    free = view.may_start()
    if most is not None and most < free:
        free = most
    if free <= 0:
        return
    limits = view.limits
    slots = limits.max_rollouts_in_flight // limits.group_size
    pending = view.pending
    while pending:
        group = next(iter(pending.values()))
        count = group.unstarted
        if count > free or (not group.opened and view.open_groups >= slots):
            return
        for _ in range(count):
            server_id = route(view)
            if server_id is None:
                return
            yield StartRollouts(
                group_id=group.group_id,
                rollout_ids=(view.next_rollout_id,),
                server_id=server_id,
            )
        free -= count


def batch(view: ClusterView, unit: Unit) -> tuple[RolloutId, ...]:
    """The oldest full training batch that is ready, or ``()``.

    Oldest is earliest started. With unit ``group`` only complete groups count, and are taken
    whole.
    """
    wanted = view.limits.train_batch_rollouts
    if unit == "rollout":
        if len(view.ready) < wanted:
            return ()
        return tuple(sorted(view.ready)[:wanted])
    complete = view.complete_groups
    if len(complete) * view.limits.group_size < wanted:
        return ()
    taken: list[RolloutId] = []
    for group_id in sorted(complete):
        if len(taken) >= wanted:
            break
        taken += sorted(complete[group_id].rollouts)
    return tuple(taken) if len(taken) >= wanted else ()


def train(view: ClusterView, unit: Unit) -> Iterator[Command]:
    """Start a training step on the oldest batch, if the trainer and a batch are ready.

    What has become older than ``max_lag`` is dropped instead, with unit ``group`` group by group.
    """
    while view.trainer_ready:
        rollout_ids = batch(view, unit)
        if not rollout_ids:
            return
        late = _late(view, rollout_ids, unit)
        if late:
            yield DropRollouts(rollout_ids=late)
        else:
            version = WeightVersion(view.weight_version + 1)
            yield StartTrainStep(weight_version=version, rollout_ids=rollout_ids)
            return


def _late(
    view: ClusterView, rollout_ids: tuple[RolloutId, ...], unit: Unit
) -> tuple[RolloutId, ...]:
    max_lag = view.limits.max_lag
    if max_lag is None:
        return ()
    oldest = view.weight_version - max_lag
    rollouts = view.rollouts
    late = [x for x in rollout_ids if rollouts[x].first_version < oldest]
    if unit == "group" and late:
        groups = {rollouts[x].group.group_id for x in late}
        late = [x for x in rollout_ids if rollouts[x].group.group_id in groups]
    return tuple(late)


def give_up(rollouts: Iterable[Rollout]) -> Iterator[Command]:
    """Abort those that run and drop those that are held; what is being trained stays."""
    running, held = [], []
    for rollout in rollouts:
        if rollout.phase is Phase.RUNNING:
            running.append(rollout.rollout_id)
        elif rollout.phase in (Phase.INTERRUPTED, Phase.FINISHED, Phase.READY):
            held.append(rollout.rollout_id)
    if running:
        yield AbortRollouts(rollout_ids=tuple(running))
    if held:
        yield DropRollouts(rollout_ids=tuple(held))


def discard_abandoned(view: ClusterView) -> Iterator[Command]:
    """Abort and drop what is left of groups in which too many rollouts failed."""
    for group in list(view.abandoned_groups.values()):
        yield from give_up(group.rollouts.values())


def resume(
    view: ClusterView, route: Router, wait_for: Collection[ServerId] = ()
) -> Iterator[Command]:
    """Resume every interrupted rollout on its own server, or on another if that one is lost.

    Rollouts of servers in `wait_for` are left alone.
    """
    by_server: dict[ServerId, list[RolloutId]] = defaultdict(list)
    homeless: list[RolloutId] = []
    for rollout_id, rollout in view.interrupted.items():
        if rollout.server_id not in view.servers:
            homeless.append(rollout_id)
        elif rollout.server_id not in wait_for:
            by_server[rollout.server_id].append(rollout_id)
    for server_id, rollout_ids in by_server.items():
        yield ResumeRollouts(rollout_ids=tuple(rollout_ids), server_id=server_id)
    for rollout_id in homeless:
        other = route(view)
        if other is None:
            return
        yield ResumeRollouts(rollout_ids=(rollout_id,), server_id=other)


class WeightUpdates:
    """Brings every server to the newest weights and resumes what that interrupted.

    Args:
        mode: what a server does with running rollouts.
        barrier: all servers wait for the last one before any goes on (a global update);
            otherwise each goes on by itself. By default so unless `servers_at_once` is given.
        hold_for_trainer: after an update, wait also until the trainer has saved and evaluated,
            as AReaL does as released.
        servers_at_once: so many load at a time (a rolling update), those with the oldest weights
            first, and the others generate with what they have; None: all. Such an update leaves
            `route` to choose, where it can, a server that loads nothing: see
            `areal_sched.routing.router`.
        route: where rollouts of a lost server go.

    Raises:
        ConfigError: an option is out of range, or `servers_at_once` meets a barrier.

    Hand it every event of `EVENTS` first; start rollouts only while `generating`.
    """

    EVENTS = frozenset(
        {
            TrainStepFinished,
            TrainerReady,
            WeightsLoaded,
            ServerJoined,
            ServerLost,
            RolloutsInterrupted,
        }
    )

    def __init__(
        self,
        mode: UpdateMode,
        route: Router,
        *,
        barrier: bool | None = None,
        hold_for_trainer: bool = False,
        servers_at_once: int | None = None,
    ) -> None:
        one_of("mode", mode, MODES)
        if barrier is not None:
            flag("barrier", barrier)
        if servers_at_once is not None:
            whole("servers_at_once", servers_at_once, 1)
            if barrier:
                raise ConfigError(
                    f"scheduler.servers_at_once = {servers_at_once}: with scheduler.barrier = true"
                    " no server goes on before the last one has loaded; leave one of them out"
                )
        self._mode = mode
        self._route = route
        self._barrier = servers_at_once is None if barrier is None else barrier
        self._at_once = servers_at_once
        self._hold_for_trainer = hold_for_trainer
        self._held = False
        self._loading: set[ServerId] = set()
        # A rolling update resumes server by server, from this list: looking through all
        # interrupted rollouts costs time in proportion to their number.
        self._waiting: dict[ServerId, list[RolloutId]] = defaultdict(list)

    @property
    def generating(self) -> bool:
        """Whether rollouts may be started now."""
        return not self._held and not (self._barrier and self._loading)

    def on(self, event: Event, view: ClusterView, *, may_resume: bool = True) -> Iterator[Command]:
        """Load weights where they are old; resume, if allowed, where generation may go on."""
        if isinstance(event, TrainStepFinished):
            self._held = self._hold_for_trainer
            yield from self._bring(list(view.servers), view)
        elif isinstance(event, TrainerReady):
            self._held = False
        elif isinstance(event, ServerJoined):
            yield from self._bring([event.server_id], view)
        elif isinstance(event, ServerLost):
            self._loading.discard(event.server_id)
            yield from self._bring([], view)
        elif isinstance(event, WeightsLoaded):
            self._loading.discard(event.server_id)
            yield from self._bring([event.server_id], view)
        elif isinstance(event, RolloutsInterrupted) and not self._barrier:
            # Added to, not replaced: a server may load again before it could resume these.
            self._waiting[event.server_id] += [rollout_id for rollout_id, _ in event.progress]
        if may_resume and view.interrupted and self.generating:
            if self._barrier or isinstance(event, (ServerLost, ServerJoined, TrainerReady)):
                yield from self._resume_all(view)
            elif isinstance(event, (WeightsLoaded, RolloutsInterrupted)):
                yield from self._resume_on(event.server_id, view)

    def _bring(self, server_ids: Iterable[ServerId], view: ClusterView) -> Iterator[Command]:
        """Load where weights are old: on these servers or, rolling, wherever it is due."""
        if self._at_once is None:
            for server_id in server_ids:
                yield from self._load(server_id, view)
            return
        while len(self._loading) < self._at_once:
            # The oldest first: where versions come faster than a round takes, none is left out.
            old = [
                (server.weight_version, server.server_id)
                for server in view.servers.values()
                if server.loading is None and server.weight_version < view.weight_version
            ]
            if not old:
                return
            yield from self._load(min(old)[1], view)

    def _load(self, server_id: ServerId, view: ClusterView) -> Iterator[Command]:
        server = view.servers[server_id]
        if server.loading is None and server.weight_version < view.weight_version:
            self._loading.add(server_id)
            yield LoadWeights(
                server_id=server_id, weight_version=view.weight_version, mode=self._mode
            )

    def _resume_on(self, server_id: ServerId, view: ClusterView) -> Iterator[Command]:
        if server_id in self._loading:
            return
        interrupted = view.interrupted
        ids = tuple(
            x
            for x in self._waiting.pop(server_id, ())
            if x in interrupted and interrupted[x].server_id == server_id
        )
        if ids:
            yield ResumeRollouts(rollout_ids=ids, server_id=server_id)

    def _resume_all(self, view: ClusterView) -> Iterator[Command]:
        # With a barrier nothing is loading now. Without one, servers that load resume their own
        # rollouts later, also those they had before they were lost and joined again.
        self._waiting.clear()
        if self._loading:
            for rollout_id, rollout in view.interrupted.items():
                if rollout.server_id in self._loading:
                    self._waiting[rollout.server_id].append(rollout_id)
        yield from resume(view, self._route, self._loading)
