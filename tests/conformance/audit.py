"""The laws every scheduler has to keep, counted by the fake's truth and not by the state."""

from __future__ import annotations

from collections import Counter

from areal_sched import (
    ClusterState,
    Command,
    DropRollouts,
    Limits,
    Phase,
    StartRollouts,
    StartTrainStep,
)
from benchmarks.recount import recount
from tests.conformance.fake_cluster import FakeCluster
from tests.conformance.fake_records import FakeRollout

PLACE_OF_PHASE = {
    Phase.RUNNING: "server",
    Phase.ABORTING: "server",
    Phase.INTERRUPTED: "held",
    Phase.FINISHED: "reward",
    Phase.READY: "ready",
    Phase.TRAINING: "training",
}


class Audit:
    """Checks one run, command by command and event by event.

    Args:
        cluster: the truth.
        limits: what must be kept.
        groups_whole: whether each group must be trained in one step.
        full_batches: whether every batch must have the size the limits say.

    Attributes:
        lags: how often a trajectory of each lag entered a step, by the truth.
    """

    def __init__(
        self,
        cluster: FakeCluster,
        limits: Limits,
        *,
        groups_whole: bool,
        full_batches: bool = True,
    ) -> None:
        self._cluster = cluster
        self._limits = limits
        self._groups_whole = groups_whole
        self._full_batches = full_batches
        self.lags: Counter[int] = Counter()

    def before_command(self, command: Command, state: ClusterState) -> None:
        """Check a command against the truth as it is now, before it is carried out."""
        match command:
            case StartRollouts():
                self._check_start(command)
            case StartTrainStep():
                self._check_step(command, state)
            case DropRollouts():
                places = {self._cluster.rollouts[x].place for x in command.rollout_ids}
                assert places <= {"held", "reward", "ready"}
            case _:
                pass

    def _check_start(self, command: StartRollouts) -> None:
        cluster, limits = self._cluster, self._limits
        assert cluster.servers[command.server_id].up
        first = len(cluster.rollouts)
        new = len(command.rollout_ids)
        assert list(command.rollout_ids) == list(range(first, first + new)), "ids are counters"
        places = Counter(rollout.place for rollout in cluster.rollouts.values())
        in_flight = places["server"] + places["held"] + new
        most = limits.max_rollouts_in_flight
        assert in_flight <= most, f"{in_flight} in flight, {most} allowed"
        if limits.eta is not None:
            admitted = first + new - places["failed"] - places["dropped"]
            allowed = (cluster.published + limits.eta + 1) * limits.train_batch_rollouts
            assert admitted <= allowed, f"{admitted} admitted, eta allows {allowed}"

    def _check_step(self, command: StartTrainStep, state: ClusterState) -> None:
        cluster, limits = self._cluster, self._limits
        assert not cluster.batch, "one step at a time"
        assert command.weight_version == cluster.published + 1
        assert len(set(command.rollout_ids)) == len(command.rollout_ids)
        size, wanted = len(command.rollout_ids), limits.train_batch_rollouts
        assert size == wanted or not self._full_batches, f"a batch of {size}, {wanted} wanted"
        chosen = [cluster.rollouts[rollout_id] for rollout_id in command.rollout_ids]
        assert {rollout.place for rollout in chosen} == {"ready"}
        for rollout in chosen:
            assert rollout.first_version is not None
            known = state.rollouts[rollout.rollout_id].first_version
            assert known == rollout.first_version, f"{rollout}: the state believes {known}"
            lag = cluster.published - rollout.first_version
            assert limits.max_lag is None or lag <= limits.max_lag, f"{rollout}: lag {lag}"
            self.lags[lag] += 1
        if self._groups_whole:
            self._check_groups(chosen)

    def _check_groups(self, chosen: list[FakeRollout]) -> None:
        together = Counter(rollout.group_id for rollout in chosen)
        assert set(together.values()) == {self._limits.group_size}, "a group trained in part"
        unsettled = Counter(rollout.group_id for rollout in self._cluster.live.values())
        assert all(unsettled[group_id] == n for group_id, n in together.items())

    def after_event(self, state: ClusterState) -> None:
        """Check what the state believes once the commands of an event are under way."""
        recount(state, groups_whole=self._groups_whole)
        cluster = self._cluster
        places = Counter(rollout.place for rollout in cluster.rollouts.values())
        assert state.next_rollout_id == len(cluster.rollouts)
        assert (state.trained, state.failed, state.dropped) == (
            places["trained"],
            places["failed"],
            places["dropped"],
        )
        assert list(state.rollouts) == list(cluster.live), "lost, or counted twice"
        for rollout_id, rollout in state.rollouts.items():
            truth = cluster.live[rollout_id]
            assert PLACE_OF_PHASE[rollout.phase] == truth.place
            assert (rollout.phase is Phase.ABORTING) == truth.aborted
            assert rollout.server_id == truth.server_id
            assert rollout.generated_tokens == truth.tokens
        assert state.late_facts == cluster.late_facts
        assert state.weight_version == cluster.published
        assert state.in_step == bool(cluster.batch)
        assert set(state.servers) == {s.server_id for s in cluster.servers if s.up}
        for server_id, server in state.servers.items():
            true = cluster.servers[server_id]
            assert server.weight_version == true.weight_version
            assert server.loading == (true.load and true.load.weight_version)
