"""Events: what happened in the world, in the past tense.

A field is here only if a live cluster can measure it. Response lengths to come are not.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from areal_sched.ids import GroupId, PromptId, RolloutId, ServerId, TimerId, WeightVersion
from areal_sched.messages import message

FinishReason: TypeAlias = Literal["stop", "length"]
"""``stop``: the model ended its answer; ``length``: the token limit cut it."""


@message
class ServerJoined:
    """An inference server is ready. ``weight_version``: the weights it holds."""

    server_id: ServerId
    max_running_rollouts: int
    kv_cache_tokens: int
    weight_version: WeightVersion


@message
class ServerLost:
    """An inference server is gone. What its rollouts generated since their last report is lost."""

    server_id: ServerId


@message
class PromptArrived:
    """The data loader offers a prompt: ``group_size`` rollouts of it are wanted."""

    prompt_id: PromptId
    group_id: GroupId
    group_size: int
    prompt_tokens: int


@message
class RolloutsInterrupted:
    """One server stopped these rollouts and dropped their KV cache; what they generated is kept.

    One event per server, not per rollout. ``progress`` holds (rollout, generated tokens so far,
    of all versions together); ``weight_version`` is the one that generated the newest of them.
    """

    server_id: ServerId
    weight_version: WeightVersion
    progress: tuple[tuple[RolloutId, int], ...]


@message
class RolloutFinished:
    """A rollout ended; its reward is being computed. ``generated_tokens`` counts all versions."""

    rollout_id: RolloutId
    weight_version: WeightVersion
    generated_tokens: int
    finish_reason: FinishReason


@message
class RolloutFailed:
    """A rollout cannot go on (server error, reward failed, aborted); what it generated is lost."""

    rollout_id: RolloutId
    reason: str


@message
class RewardComputed:
    """The trajectory is complete and may be trained."""

    rollout_id: RolloutId
    reward: float


@message
class TrainStepFinished:
    """A training step is done and its weights can be loaded by servers."""

    weight_version: WeightVersion


@message
class TrainStepFailed:
    """The trainer lost the step that was to make ``weight_version``; its batch is ready again."""

    weight_version: WeightVersion
    reason: str


@message
class TrainerReady:
    """The trainer can begin a step: after joining, and after saving and evaluating each step."""

    weight_version: WeightVersion


@message
class WeightsLoaded:
    """A server now generates with these weights."""

    server_id: ServerId
    weight_version: WeightVersion


@message
class TimerFired:
    """A timer of the scheduler's went off."""

    timer_id: TimerId


Event: TypeAlias = (
    ServerJoined
    | ServerLost
    | PromptArrived
    | RolloutsInterrupted
    | RolloutFinished
    | RolloutFailed
    | RewardComputed
    | TrainStepFinished
    | TrainStepFailed
    | TrainerReady
    | WeightsLoaded
    | TimerFired
)
