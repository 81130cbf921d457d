"""Counts everything the state keeps counts of once more, from its live rollouts alone."""

from __future__ import annotations

from areal_sched import ClusterState, Phase, Rollout

ON_SERVER = (Phase.RUNNING, Phase.ABORTING)
STILL_WANTED = (*ON_SERVER, Phase.INTERRUPTED, Phase.FINISHED)
"""Phases before READY: the group still waits for these."""


def recount(state: ClusterState, *, groups_whole: bool = True) -> None:
    """Assert that every count and index of the state agrees with its live rollouts.

    Args:
        state: the state after an event or a command.
        groups_whole: no group was trained in part, so what ``complete_groups`` must hold follows
            from the live rollouts; otherwise only what it may hold does.
    """
    by_phase: dict[Phase, list[Rollout]] = {phase: [] for phase in Phase}
    by_server: dict[int, list[Rollout]] = {server_id: [] for server_id in state.servers}
    by_group: dict[int, list[Rollout]] = {group_id: [] for group_id in state.groups}
    for rollout_id, rollout in state.rollouts.items():
        assert rollout.rollout_id == rollout_id < state.next_rollout_id
        by_phase[rollout.phase].append(rollout)
        assert state.groups[rollout.group.group_id] is rollout.group
        by_group[rollout.group.group_id].append(rollout)
        if rollout.phase in ON_SERVER:
            by_server[rollout.server_id].append(rollout)
        _check_times(state, rollout)
    assert list(state.rollouts) == sorted(state.rollouts)
    assert not by_phase[Phase.TRAINED] + by_phase[Phase.FAILED] + by_phase[Phase.DROPPED]

    on_server = sum(len(by_phase[phase]) for phase in ON_SERVER)
    assert state.running == on_server
    assert state.in_flight == on_server + len(by_phase[Phase.INTERRUPTED])
    assert state.awaiting_reward == len(by_phase[Phase.FINISHED])
    assert _ids(state.interrupted.values()) == _ids(by_phase[Phase.INTERRUPTED])
    assert _ids(state.ready.values()) == _ids(by_phase[Phase.READY])
    assert _ids(state.training) == _ids(by_phase[Phase.TRAINING])
    assert state.in_step == bool(state.training)
    assert not (state.in_step and state.trainer_ready)
    assert not state.in_step or state.making == state.weight_version + 1
    settled = state.trained + state.failed + state.dropped
    assert state.next_rollout_id == len(state.rollouts) + settled, "started = live + settled"
    assert state.admitted == len(state.rollouts) + state.trained
    assert not state.reward_outstanding & set(state.rollouts)

    _check_servers(state, by_server)
    _check_groups(state, by_group, groups_whole)


def _ids(rollouts: object) -> list[int]:
    return sorted(r.rollout_id for r in rollouts)  # type: ignore[attr-defined]


def _check_times(state: ClusterState, rollout: Rollout) -> None:
    phase = rollout.phase
    assert 0 <= rollout.start_ns <= state.now_ns
    assert (rollout.finish_ns >= 0) == (phase >= Phase.FINISHED)
    assert (rollout.ready_ns >= 0) == (phase >= Phase.READY)
    assert (rollout.train_ns >= 0) == (phase is Phase.TRAINING)
    assert (rollout.consumed_version >= 0) == (phase is Phase.TRAINING)
    assert rollout.settled_ns == -1
    assert 0 <= rollout.first_version <= state.weight_version


def _check_servers(state: ClusterState, by_server: dict[int, list[Rollout]]) -> None:
    load = {}
    kv_tokens = {}
    for server_id, server in state.servers.items():
        assert server.server_id == server_id
        here = by_server[server_id]
        assert _ids(server.rollouts.values()) == _ids(here)
        load[server_id] = len(here)
        kv_tokens[server_id] = sum(r.group.prompt_tokens + r.generated_tokens for r in here)
        assert server.known_kv_tokens == kv_tokens[server_id]
        assert server.weight_version <= state.weight_version
        assert server.loading is None or server.weight_version < server.loading
        assert server.loading is None or server.loading <= state.weight_version
    for least, loads in ((state.least_loaded(), load), (state.least_kv(), kv_tokens)):
        assert least == min(loads, key=lambda s: (loads[s], s), default=None)


def _check_groups(
    state: ClusterState, by_group: dict[int, list[Rollout]], groups_whole: bool
) -> None:
    pending, open_groups, may_be_complete, must_be_complete, abandoned = (set() for _ in range(5))
    for group_id, group in state.groups.items():
        live = by_group[group_id]
        assert group.group_id == group_id
        assert _ids(group.rollouts.values()) == _ids(live)
        assert live or group.unstarted, "a settled group is kept"
        assert group.ready == sum(r.phase is Phase.READY for r in live)
        waiting = sum(r.phase in STILL_WANTED for r in live)
        assert group.outstanding == group.unstarted + waiting
        assert group.opened or not live
        if group.unstarted:
            pending.add(group_id)
        if group.opened and group.outstanding:
            open_groups.add(group_id)
        if group.abandoned:
            assert not group.unstarted
            abandoned.add(group_id)
        elif group.ready and not group.outstanding:
            may_be_complete.add(group_id)
            if group.ready == len(live):
                must_be_complete.add(group_id)
    assert set(state.pending) == pending
    assert state.open_groups == len(open_groups)
    assert set(state.abandoned_groups) == abandoned
    assert set(state.complete_groups) <= may_be_complete
    if groups_whole:
        assert set(state.complete_groups) == must_be_complete == may_be_complete
    for name in ("pending", "complete_groups", "abandoned_groups"):
        for group_id, group in getattr(state, name).items():
            assert state.groups[group_id] is group, name
