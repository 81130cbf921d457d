"""Commands: what the scheduler wants done, in the imperative.

Commands reserve, events settle: a command takes effect in the view at once, its outcome arrives
later as an event, and other facts may overtake it.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from areal_sched.ids import GroupId, RolloutId, ServerId, TimerId, WeightVersion
from areal_sched.messages import message

UpdateMode: TypeAlias = Literal["interrupt", "in_place", "drain"]
"""What a server does with running rollouts when new weights come.

``interrupt``: stop them, drop the KV cache, report them with `RolloutsInterrupted`, load.
``in_place``: pause, load, go on with the old KV cache.
``drain``: finish what is running, start nothing new, then load.
"""


@message
class StartRollouts:
    """Start new rollouts of one group on one server. Ids continue the run's counter."""

    group_id: GroupId
    rollout_ids: tuple[RolloutId, ...]
    server_id: ServerId


@message
class ResumeRollouts:
    """Go on with interrupted rollouts: prompt and answer so far are prefilled again."""

    rollout_ids: tuple[RolloutId, ...]
    server_id: ServerId


@message
class InterruptRollouts:
    """Stop running rollouts of one server, keeping what they generated (first user: APRIL)."""

    rollout_ids: tuple[RolloutId, ...]
    server_id: ServerId


@message
class AbortRollouts:
    """Stop running rollouts and lose them; each is settled by an event. None is replaced."""

    rollout_ids: tuple[RolloutId, ...]


@message
class DropRollouts:
    """Discard what we hold: interrupted, finished or ready rollouts."""

    rollout_ids: tuple[RolloutId, ...]


@message
class LoadWeights:
    """Let a server load a published weight version."""

    server_id: ServerId
    weight_version: WeightVersion
    mode: UpdateMode


@message
class StartTrainStep:
    """Train on ready rollouts; the step will make ``weight_version``."""

    weight_version: WeightVersion
    rollout_ids: tuple[RolloutId, ...]


@message
class SetTimer:
    """Ask for `TimerFired` at a time, in nanoseconds on the run's clock."""

    timer_id: TimerId
    fire_at_ns: int


Command: TypeAlias = (
    StartRollouts
    | ResumeRollouts
    | InterruptRollouts
    | AbortRollouts
    | DropRollouts
    | LoadWeights
    | StartTrainStep
    | SetTimer
)
