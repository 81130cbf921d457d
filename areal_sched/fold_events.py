"""What each event changes in the state. The only code, beside `fold_commands`, that changes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from areal_sched import events as e
from areal_sched.errors import UnexpectedEvent
from areal_sched.records import Group, Phase, Server
from areal_sched.state import ClusterState

# The hot path reads these as globals: an enum attribute access costs more than the rest of a test.
_ABORTING, _INTERRUPTED = Phase.ABORTING, Phase.INTERRUPTED
_FINISHED, _READY = Phase.FINISHED, Phase.READY

# ---- events: servers and prompts -----------------------------------------------------------


def _server_joined(state: ClusterState, event: e.ServerJoined) -> None:
    if event.server_id in state.servers:
        raise UnexpectedEvent(f"server {event.server_id} joined twice")
    if not 0 <= event.weight_version <= state.weight_version:
        raise UnexpectedEvent(f"{event}: the newest weights are {state.weight_version}")
    server = Server(
        event.server_id,
        event.max_running_rollouts,
        event.kv_cache_tokens,
        event.weight_version,
    )
    state.servers[event.server_id] = server
    state.reindex(server)


def _server_lost(state: ClusterState, event: e.ServerLost) -> None:
    server = state.server(event.server_id, UnexpectedEvent)
    del state.servers[event.server_id]
    for index in (state.by_load, state.by_kv):
        if index is not None:
            index.remove(event.server_id)
    state.running -= len(server.rollouts)
    aborted = []
    for rollout in server.rollouts.values():
        if rollout.phase is _ABORTING:
            aborted.append(rollout)
        else:
            rollout.phase = _INTERRUPTED
            rollout.interruptions += 1
            state.interrupted[rollout.rollout_id] = rollout
    for rollout in aborted:
        state.fail(rollout)


def _prompt_arrived(state: ClusterState, event: e.PromptArrived) -> None:
    if event.group_id in state.groups:
        raise UnexpectedEvent(f"group {event.group_id} arrived twice")
    if event.group_size < 1 or event.prompt_tokens < 1:
        raise UnexpectedEvent(f"empty group or prompt: {event}")
    group = Group(event.group_id, event.prompt_id, event.group_size, event.prompt_tokens)
    state.groups[event.group_id] = state.pending[event.group_id] = group


def _weights_loaded(state: ClusterState, event: e.WeightsLoaded) -> None:
    server = state.server(event.server_id, UnexpectedEvent)
    if server.loading != event.weight_version:
        raise UnexpectedEvent(f"{event}: the server was loading {server.loading}")
    server.loading = None
    server.weight_version = event.weight_version


def _timer_fired(state: ClusterState, event: e.TimerFired) -> None:
    if event.timer_id not in state.timers:
        raise UnexpectedEvent(f"{event}: no such timer is set")
    state.timers.remove(event.timer_id)


# ---- events: rollouts ----------------------------------------------------------------------


def _rollout_finished(state: ClusterState, event: e.RolloutFinished) -> None:
    rollout = state.rollouts.get(event.rollout_id)
    if rollout is None or rollout.phase > _ABORTING:
        raise UnexpectedEvent(f"{event}: the rollout is not running")
    state.leave_server(rollout)
    rollout.generated_tokens = event.generated_tokens
    rollout.last_version = event.weight_version
    rollout.finish_ns = state.now_ns
    # An abort that came too late is forgotten: the answer is complete, and the scheduler may
    # still drop it.
    rollout.phase = _FINISHED
    state.awaiting_reward += 1


def _rollouts_interrupted(state: ClusterState, event: e.RolloutsInterrupted) -> None:
    server = state.server(event.server_id, UnexpectedEvent)
    on_server = server.rollouts
    interrupted = state.interrupted
    aborted = []
    kv_tokens = 0
    for rollout_id, generated_tokens in event.progress:
        rollout = on_server.pop(rollout_id, None)
        if rollout is None:
            raise UnexpectedEvent(
                f"rollout {rollout_id} was interrupted on server {event.server_id} "
                "but does not run there"
            )
        before = rollout.generated_tokens
        kv_tokens += rollout.group.prompt_tokens + before
        if generated_tokens != before:
            if generated_tokens < before:
                raise UnexpectedEvent(
                    f"rollout {rollout_id} had {before} tokens and now has {generated_tokens}"
                )
            rollout.last_version = event.weight_version
            rollout.generated_tokens = generated_tokens
        if rollout.phase is _ABORTING:
            aborted.append(rollout)
            continue
        rollout.phase = _INTERRUPTED
        rollout.interruptions += 1
        interrupted[rollout_id] = rollout
    # What leave_server() does for one rollout, for all of them at once.
    state.running -= len(event.progress)
    server.known_kv_tokens -= kv_tokens
    state.reindex(server)
    for rollout in aborted:
        state.fail(rollout)


def _rollout_failed(state: ClusterState, event: e.RolloutFailed) -> None:
    rollout = state.rollouts.get(event.rollout_id)
    if rollout is None:
        if event.rollout_id in state.reward_outstanding:
            state.reward_outstanding.remove(event.rollout_id)
            state.late_facts += 1
            return
        raise UnexpectedEvent(f"{event}: there is no such rollout")
    if rollout.phase <= _ABORTING:
        state.leave_server(rollout)
    elif rollout.phase is _FINISHED:
        state.awaiting_reward -= 1
    else:
        raise UnexpectedEvent(f"{event}: the rollout is {rollout.phase.name}")
    state.fail(rollout)


def _reward_computed(state: ClusterState, event: e.RewardComputed) -> None:
    rollout = state.rollouts.get(event.rollout_id)
    if rollout is None or rollout.phase is not _FINISHED:
        if event.rollout_id in state.reward_outstanding:
            state.reward_outstanding.remove(event.rollout_id)
            state.late_facts += 1
            return
        raise UnexpectedEvent(f"{event}: the rollout awaits no reward")
    if not -1e308 <= event.reward <= 1e308:
        raise UnexpectedEvent(f"{event}: the reward is no finite number")
    state.awaiting_reward -= 1
    rollout.phase = _READY
    rollout.ready_ns = state.now_ns
    rollout.reward = event.reward
    state.ready[event.rollout_id] = rollout
    group = rollout.group
    group.ready += 1
    state.lessen(group, 1)


# ---- events: trainer -----------------------------------------------------------------------


def _trainer_became_ready(state: ClusterState, event: e.TrainerReady) -> None:
    if state.making is not None or state.trainer_ready:
        raise UnexpectedEvent(f"{event}: the trainer was ready or in a step")
    if event.weight_version != state.weight_version:
        raise UnexpectedEvent(f"{event}: the newest weights are {state.weight_version}")
    state.trainer_ready = True


def _train_step_finished(state: ClusterState, event: e.TrainStepFinished) -> None:
    if event.weight_version != state.making:
        raise UnexpectedEvent(f"{event}: the step in progress makes {state.making}")
    state.making = None
    state.weight_version = event.weight_version
    batch, state.training = state.training, []
    state.trained += len(batch)
    for rollout in batch:
        state.settle(rollout, Phase.TRAINED)
    if state.on_settled is not None:
        state.on_settled(batch)


def _train_step_failed(state: ClusterState, event: e.TrainStepFailed) -> None:
    if event.weight_version != state.making:
        raise UnexpectedEvent(f"{event}: the step in progress makes {state.making}")
    state.making = None
    batch, state.training = state.training, []
    for rollout in batch:
        rollout.phase = _READY
        rollout.train_ns = rollout.consumed_version = -1
        state.ready[rollout.rollout_id] = rollout
        group = rollout.group
        group.ready += 1
        if not group.outstanding and not group.abandoned:
            state.complete_groups[group.group_id] = group


EVENT_FOLDS: dict[type, Callable[[ClusterState, Any], None]] = {
    e.ServerJoined: _server_joined,
    e.ServerLost: _server_lost,
    e.PromptArrived: _prompt_arrived,
    e.RolloutsInterrupted: _rollouts_interrupted,
    e.RolloutFinished: _rollout_finished,
    e.RolloutFailed: _rollout_failed,
    e.RewardComputed: _reward_computed,
    e.TrainStepFinished: _train_step_finished,
    e.TrainStepFailed: _train_step_failed,
    e.TrainerReady: _trainer_became_ready,
    e.WeightsLoaded: _weights_loaded,
    e.TimerFired: _timer_fired,
}
"""Event class to the function that folds it; each raises `UnexpectedEvent`."""
