"""What each command reserves in the state. Commands reserve, events settle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from areal_sched import commands as c
from areal_sched.errors import InvalidCommand
from areal_sched.records import Phase, Rollout
from areal_sched.staleness import lag
from areal_sched.state import ClusterState

_RUNNING, _ABORTING, _INTERRUPTED = Phase.RUNNING, Phase.ABORTING, Phase.INTERRUPTED
_FINISHED, _READY, _TRAINING = Phase.FINISHED, Phase.READY, Phase.TRAINING


def _start_rollouts(state: ClusterState, command: c.StartRollouts) -> None:
    group = state.groups.get(command.group_id)
    server = state.servers.get(command.server_id)
    if group is None or server is None:
        raise InvalidCommand(f"{command}: no such group or server")
    ids = command.rollout_ids
    count = len(ids)
    if not 0 < count <= group.unstarted:
        raise InvalidCommand(f"{command}: the group has {group.unstarted} rollouts to start")
    if count > state.may_start():
        raise InvalidCommand(
            f"{command}: eta and max_rollouts_in_flight allow {state.may_start()} rollouts"
        )
    version = server.weight_version if server.loading is None else server.loading
    now_ns = state.now_ns
    expected = state.next_rollout_id
    for rollout_id in ids:
        if rollout_id != expected:
            raise InvalidCommand(f"{command}: the next rollout id is {expected}")
        rollout = Rollout(rollout_id, group, server.server_id, version, now_ns)
        state.rollouts[rollout_id] = rollout
        group.rollouts[rollout_id] = rollout
        server.rollouts[rollout_id] = rollout
        # No RolloutId(...): a call for nothing, once a trajectory.
        expected += 1  # type: ignore[assignment]
    state.next_rollout_id = expected
    group.unstarted -= count
    if not group.unstarted:
        del state.pending[command.group_id]
    if not group.opened:
        group.opened = True
        state.open_groups += 1
    state.running += count
    server.known_kv_tokens += count * group.prompt_tokens
    if state.by_load is not None:
        state.by_load.update(server.server_id, len(server.rollouts))
    if state.by_kv is not None:
        state.by_kv.update(server.server_id, server.known_kv_tokens)


def _resume_rollouts(state: ClusterState, command: c.ResumeRollouts) -> None:
    server = state.server(command.server_id, InvalidCommand)
    version = server.weight_version if server.loading is None else server.loading
    for rollout_id in command.rollout_ids:
        rollout = state.interrupted.pop(rollout_id, None)
        if rollout is None:
            raise InvalidCommand(f"{command}: rollout {rollout_id} is not interrupted")
        rollout.phase = _RUNNING
        rollout.server_id = command.server_id
        if rollout.generated_tokens == 0:
            rollout.first_version = rollout.last_version = version
        server.rollouts[rollout_id] = rollout
        server.known_kv_tokens += rollout.group.prompt_tokens + rollout.generated_tokens
    state.running += len(command.rollout_ids)
    state.reindex(server)


def _interrupt_rollouts(state: ClusterState, command: c.InterruptRollouts) -> None:
    server = state.server(command.server_id, InvalidCommand)
    for rollout_id in command.rollout_ids:
        if rollout_id not in server.rollouts:
            raise InvalidCommand(f"{command}: rollout {rollout_id} is not on that server")


def _abort_rollouts(state: ClusterState, command: c.AbortRollouts) -> None:
    for rollout_id in command.rollout_ids:
        rollout = state.rollouts.get(rollout_id)
        if rollout is None or rollout.phase is not _RUNNING:
            raise InvalidCommand(f"{command}: rollout {rollout_id} is not running")
        rollout.phase = _ABORTING


def _drop_rollouts(state: ClusterState, command: c.DropRollouts) -> None:
    dropped = []
    for rollout_id in command.rollout_ids:
        rollout = state.rollouts.get(rollout_id)
        phase = None if rollout is None else rollout.phase
        if rollout is None or phase not in (_INTERRUPTED, _FINISHED, _READY):
            raise InvalidCommand(f"{command}: rollout {rollout_id} is not held")
        group = rollout.group
        if phase is _READY:
            del state.ready[rollout_id]
            group.ready -= 1
            if not group.ready:
                state.complete_groups.pop(group.group_id, None)
        else:
            if phase is _INTERRUPTED:
                del state.interrupted[rollout_id]
            else:
                state.awaiting_reward -= 1
                state.reward_outstanding.add(rollout_id)
            state.lessen(group, 1)
        state.settle(rollout, Phase.DROPPED)
        dropped.append(rollout)
    state.dropped += len(dropped)
    if state.on_settled is not None:
        state.on_settled(dropped)


def _load_weights(state: ClusterState, command: c.LoadWeights) -> None:
    server = state.server(command.server_id, InvalidCommand)
    if server.loading is not None:
        raise InvalidCommand(f"{command}: the server is loading {server.loading}")
    if not server.weight_version < command.weight_version <= state.weight_version:
        raise InvalidCommand(
            f"{command}: the server holds {server.weight_version}, "
            f"published is {state.weight_version}"
        )
    server.loading = command.weight_version


def _start_train_step(state: ClusterState, command: c.StartTrainStep) -> None:
    if not state.trainer_ready:
        raise InvalidCommand("StartTrainStep while the trainer is not ready")
    if command.weight_version != state.weight_version + 1:
        raise InvalidCommand(
            f"StartTrainStep makes {command.weight_version}; next is {state.weight_version + 1}"
        )
    if not command.rollout_ids:
        raise InvalidCommand("StartTrainStep without rollouts")
    max_lag = state.limits.max_lag
    consuming = state.weight_version
    now_ns = state.now_ns
    batch = []
    ready = state.ready
    for rollout_id in command.rollout_ids:
        rollout = ready.pop(rollout_id, None)
        if rollout is None:
            raise InvalidCommand(f"StartTrainStep: rollout {rollout_id} is not ready")
        if max_lag is not None and (
            lag(consuming_version=consuming, first_version=rollout.first_version) > max_lag
        ):
            raise InvalidCommand(
                f"StartTrainStep: rollout {rollout_id} began with weights "
                f"{rollout.first_version}, more than max_lag = {max_lag} before {consuming}"
            )
        rollout.phase = _TRAINING
        rollout.train_ns = now_ns
        rollout.consumed_version = consuming
        group = rollout.group
        group.ready -= 1
        if group.group_id in state.complete_groups:
            del state.complete_groups[group.group_id]
        batch.append(rollout)
    state.training = batch
    state.trainer_ready = False
    state.making = command.weight_version


def _set_timer(state: ClusterState, command: c.SetTimer) -> None:
    if command.timer_id in state.timers:
        raise InvalidCommand(f"{command}: that timer is set already")
    if command.fire_at_ns < state.now_ns:
        raise InvalidCommand(f"{command}: the time is past, it is {state.now_ns}")
    state.timers.add(command.timer_id)


COMMAND_FOLDS: dict[type, Callable[[ClusterState, Any], None]] = {
    c.StartRollouts: _start_rollouts,
    c.ResumeRollouts: _resume_rollouts,
    c.InterruptRollouts: _interrupt_rollouts,
    c.AbortRollouts: _abort_rollouts,
    c.DropRollouts: _drop_rollouts,
    c.LoadWeights: _load_weights,
    c.StartTrainStep: _start_train_step,
    c.SetTimer: _set_timer,
}
"""Command class to the function that folds it; each raises `InvalidCommand`."""
