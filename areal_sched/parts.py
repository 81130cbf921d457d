"""Parts that schedulers are built from: starting, resuming, training, updating weights.

Each is a generator of commands over the live view, so a scheduler says ``yield from``. A part
asks the view again after every command, hence it never plans on stale counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
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
from areal_sched.records import Group, Phase
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


def start(
    view: ClusterView, route: Router, unit: Unit, most: int | None = None
) -> Iterator[Command]:
    """Start pending rollouts, in order, as many as the limits (and `most`) allow.

    With unit ``group`` a new group starts whole or not at all, while fewer than
    ``max_rollouts_in_flight / group_size`` groups are open; replacements of failed rollouts start
    at once.
    """
    free = view.may_start()
    if most is not None and most < free:
        free = most
    if free <= 0:
        return
    limits = view.limits
    slots = limits.max_rollouts_in_flight // limits.group_size
    pending = view.pending
    while free > 0 and pending:
        group = next(iter(pending.values()))
        count = 1
        if unit == "group":
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
    """Start a training step on the oldest batch, if the trainer and a batch are ready."""
    if view.trainer_ready:
        rollout_ids = batch(view, unit)
        if rollout_ids:
            version = WeightVersion(view.weight_version + 1)
            yield StartTrainStep(weight_version=version, rollout_ids=rollout_ids)


def give_up(group: Group) -> Iterator[Command]:
    """Abort and drop all that is left of a group, except what is being trained."""
    running, held = [], []
    for rollout_id, rollout in group.rollouts.items():
        if rollout.phase is Phase.RUNNING:
            running.append(rollout_id)
        elif rollout.phase in (Phase.INTERRUPTED, Phase.FINISHED, Phase.READY):
            held.append(rollout_id)
    if running:
        yield AbortRollouts(rollout_ids=tuple(running))
    if held:
        yield DropRollouts(rollout_ids=tuple(held))


def discard_abandoned(view: ClusterView) -> Iterator[Command]:
    """Abort and drop what is left of groups in which too many rollouts failed."""
    for group in list(view.abandoned_groups.values()):
        yield from give_up(group)


def resume(view: ClusterView, route: Router) -> Iterator[Command]:
    """Resume every interrupted rollout on its own server, or on another if that one is lost."""
    by_server: dict[ServerId, list[RolloutId]] = defaultdict(list)
    homeless: list[RolloutId] = []
    for rollout_id, rollout in view.interrupted.items():
        if rollout.server_id in view.servers:
            by_server[rollout.server_id].append(rollout_id)
        else:
            homeless.append(rollout_id)
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
            otherwise each goes on by itself (a rolling one).
        hold_for_trainer: after an update, wait also until the trainer has saved and evaluated,
            as AReaL does as released.
        route: where rollouts of a lost server go.

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
        barrier: bool = True,
        hold_for_trainer: bool = False,
    ) -> None:
        one_of("mode", mode, MODES)
        self._mode = mode
        self._route = route
        self._barrier = barrier
        self._hold_for_trainer = hold_for_trainer
        self._held = False
        self._loading: set[ServerId] = set()
        self._interrupted: dict[ServerId, tuple[RolloutId, ...]] = {}

    @property
    def generating(self) -> bool:
        """Whether rollouts may be started now."""
        return not self._held and not (self._barrier and self._loading)

    def on(self, event: Event, view: ClusterView, *, may_resume: bool = True) -> Iterator[Command]:
        """Load weights where they are old; resume, if allowed, where generation may go on."""
        if isinstance(event, TrainStepFinished):
            self._held = self._hold_for_trainer
            for server_id in list(view.servers):
                yield from self._load(server_id, view)
        elif isinstance(event, TrainerReady):
            self._held = False
        elif isinstance(event, ServerJoined):
            yield from self._load(event.server_id, view)
        elif isinstance(event, ServerLost):
            self._loading.discard(event.server_id)
        elif isinstance(event, WeightsLoaded):
            self._loading.discard(event.server_id)
            yield from self._load(event.server_id, view)
            if may_resume and not self._barrier and event.server_id not in self._loading:
                yield from self._resume_on(event.server_id, view)
        elif isinstance(event, RolloutsInterrupted) and not self._barrier:
            self._interrupted[event.server_id] = tuple(x for x, _ in event.progress)
        if (
            may_resume
            and view.interrupted
            and self.generating
            and type(event) is not RolloutsInterrupted
        ):
            yield from self._resume_all(event, view)

    def _load(self, server_id: ServerId, view: ClusterView) -> Iterator[Command]:
        server = view.servers[server_id]
        if server.loading is None and server.weight_version < view.weight_version:
            self._loading.add(server_id)
            yield LoadWeights(
                server_id=server_id, weight_version=view.weight_version, mode=self._mode
            )

    def _resume_on(self, server_id: ServerId, view: ClusterView) -> Iterator[Command]:
        ids = self._interrupted.pop(server_id, ())
        ids = tuple(x for x in ids if x in view.interrupted)
        if ids and not self._held:
            yield ResumeRollouts(rollout_ids=ids, server_id=server_id)

    def _resume_all(self, event: Event, view: ClusterView) -> Iterator[Command]:
        # A rolling update resumes server by server; only rollouts of lost servers, or all after
        # the trainer released them, are looked for here: looking costs time in proportion.
        if self._barrier or isinstance(event, (ServerLost, ServerJoined, TrainerReady)):
            if not self._barrier and self._loading:
                lost = [r for r in view.interrupted.values() if r.server_id not in view.servers]
                for rollout in lost:
                    other = self._route(view)
                    if other is not None:
                        yield ResumeRollouts(rollout_ids=(rollout.rollout_id,), server_id=other)
            else:
                self._interrupted.clear()
                yield from resume(view, self._route)
