"""The shared scheduler: decides what to generate, where, and when to train.

Everything that drives a run, simulated or real, goes through `Controller.handle`: one event in,
commands out, journal written. Standard library only; no clock, no I/O in decisions, no randomness.
"""

from areal_sched.commands import (
    AbortRollouts,
    Command,
    DropRollouts,
    InterruptRollouts,
    LoadWeights,
    ResumeRollouts,
    SetTimer,
    StartRollouts,
    StartTrainStep,
    UpdateMode,
)
from areal_sched.controller import Controller, Executor, Record, Scheduler
from areal_sched.errors import (
    ArealError,
    ConfigError,
    InvalidCommand,
    JournalError,
    NotReentrant,
    ProtocolError,
    ReplayDiverged,
    UnexpectedEvent,
)
from areal_sched.events import (
    Event,
    FinishReason,
    PromptArrived,
    RewardComputed,
    RolloutFailed,
    RolloutFinished,
    RolloutsInterrupted,
    ServerJoined,
    ServerLost,
    TimerFired,
    TrainerReady,
    TrainStepFailed,
    TrainStepFinished,
    WeightsLoaded,
)
from areal_sched.ids import GroupId, PromptId, RolloutId, ServerId, TimerId, WeightVersion
from areal_sched.journal import Entry, JournalReader, JournalWriter, Measured
from areal_sched.limits import Limits
from areal_sched.load import built_in, load
from areal_sched.measurements import EngineSteps, Measurement, ServerSpan, TrainerSpan
from areal_sched.records import Group, Phase, Rollout, Server
from areal_sched.replay import replay
from areal_sched.state import ClusterState
from areal_sched.view import ClusterView

__all__ = [
    "AbortRollouts",
    "ArealError",
    "ClusterState",
    "ClusterView",
    "Command",
    "ConfigError",
    "Controller",
    "DropRollouts",
    "EngineSteps",
    "Entry",
    "Event",
    "Executor",
    "FinishReason",
    "Group",
    "GroupId",
    "InterruptRollouts",
    "InvalidCommand",
    "JournalError",
    "JournalReader",
    "JournalWriter",
    "Limits",
    "LoadWeights",
    "Measured",
    "Measurement",
    "NotReentrant",
    "Phase",
    "PromptArrived",
    "PromptId",
    "ProtocolError",
    "Record",
    "ReplayDiverged",
    "ResumeRollouts",
    "RewardComputed",
    "Rollout",
    "RolloutFailed",
    "RolloutFinished",
    "RolloutId",
    "RolloutsInterrupted",
    "Scheduler",
    "Server",
    "ServerId",
    "ServerJoined",
    "ServerLost",
    "ServerSpan",
    "SetTimer",
    "StartRollouts",
    "StartTrainStep",
    "TimerFired",
    "TimerId",
    "TrainStepFailed",
    "TrainStepFinished",
    "TrainerReady",
    "TrainerSpan",
    "UnexpectedEvent",
    "UpdateMode",
    "WeightVersion",
    "WeightsLoaded",
    "built_in",
    "load",
    "replay",
]
