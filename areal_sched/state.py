"""The state: what is known of the cluster, folded from events and commands.

The folds themselves are in `fold_events` and `fold_commands`; here are the data, what schedulers
ask of them, and the transitions both folds share.

Laws, checked on every event and command:

1. A rollout is in one phase at a time and moves only as `records.Phase` allows.
2. started = live + trained + failed + dropped, at every moment.
3. No rollout starts beyond eta (paper eq. 3) or ``max_rollouts_in_flight``; none is trained
   beyond ``max_lag``.
4. One training step at a time; versions count up by one.

A command that breaks a law is the scheduler's bug (`InvalidCommand`), an event that does is the
executor's (`UnexpectedEvent`). `ClusterState` implements `view.ClusterView`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TypeAlias

from areal_sched.ids import GroupId, RolloutId, ServerId, WeightVersion
from areal_sched.limits import Limits
from areal_sched.records import Group, Phase, Rollout, Server
from areal_sched.routing import CountIndex, LoadIndex
from areal_sched.staleness import admission_budget

SettledHook: TypeAlias = Callable[[Sequence[Rollout]], None]
"""Called with rollouts that have just become TRAINED, FAILED or DROPPED, all of one phase."""


class ClusterState:
    """All that is known, and the only code that changes it.

    Args:
        limits: bounds to enforce.
        on_settled: called when rollouts leave the state; analysis collects its tables here.
    """

    def __init__(self, limits: Limits, on_settled: SettledHook | None = None) -> None:
        self.limits = limits
        self._most_in_flight = limits.max_rollouts_in_flight
        self._batch = limits.train_batch_rollouts
        self._versions = None if limits.eta is None else limits.eta + 1  # open to admission
        self.now_ns = 0
        self.weight_version = WeightVersion(0)
        self.trainer_ready = False
        self.servers: dict[ServerId, Server] = {}
        self.groups: dict[GroupId, Group] = {}
        self.pending: OrderedDict[GroupId, Group] = OrderedDict()
        self.complete_groups: dict[GroupId, Group] = {}
        self.abandoned_groups: dict[GroupId, Group] = {}
        self.rollouts: dict[RolloutId, Rollout] = {}
        self.interrupted: dict[RolloutId, Rollout] = {}
        self.ready: dict[RolloutId, Rollout] = {}
        self.training: list[Rollout] = []
        self.next_rollout_id = RolloutId(0)
        self.running = 0
        self.open_groups = 0
        self.awaiting_reward = 0
        self.trained = 0
        self.failed = 0
        self.dropped = 0
        self.late_facts = 0
        self.making: int | None = None
        self.timers: set[int] = set()
        self.reward_outstanding: set[RolloutId] = set()
        self.by_load: CountIndex | None = None
        self.by_kv: LoadIndex | None = None
        self.on_settled = on_settled

    # ---- what schedulers ask -------------------------------------------------------------------

    @property
    def in_step(self) -> bool:
        """Whether a training step is in progress."""
        return self.making is not None

    @property
    def in_flight(self) -> int:
        """Rollouts on servers or interrupted."""
        return self.running + len(self.interrupted)

    @property
    def admitted(self) -> int:
        """Rollouts started and neither failed nor dropped: N_r of paper eq. 3."""
        return self.next_rollout_id - self.failed - self.dropped

    def admission_budget(self) -> int | None:
        """Rollouts that may still start under eta (paper eq. 3); None if eta is unbounded."""
        return admission_budget(
            eta=self.limits.eta,
            weight_version=self.weight_version,
            train_batch_rollouts=self.limits.train_batch_rollouts,
            admitted_rollouts=self.next_rollout_id - self.failed - self.dropped,
        )

    def may_start(self) -> int:
        """Rollouts that may start now: what eta and ``max_rollouts_in_flight`` both allow."""
        free = self._most_in_flight - self.running - len(self.interrupted)
        if self._versions is None:
            return free
        # admission_budget(), written out: this is asked twice a trajectory.
        budget = (
            (self.weight_version + self._versions) * self._batch
            - self.next_rollout_id
            + self.failed
            + self.dropped
        )
        return budget if budget < free else free

    def least_loaded(self) -> ServerId | None:
        """The server with the fewest rollouts, lowest id first; None without servers."""
        if self.by_load is None:
            self.by_load = CountIndex()
            for server in self.servers.values():
                self.by_load.update(server.server_id, len(server.rollouts))
        return self.by_load.least()

    def least_kv(self) -> ServerId | None:
        """The server with the fewest known KV tokens, lowest id first; None without servers."""
        if self.by_kv is None:
            self.by_kv = LoadIndex()
            for server in self.servers.values():
                self.by_kv.update(server.server_id, server.known_kv_tokens)
        return self.by_kv.least()

    # ---- transitions shared by the folds --------------------------------------------------------

    def server(self, server_id: ServerId, error: type[Exception]) -> Server:
        """Return a server alive, or raise `error`."""
        server = self.servers.get(server_id)
        if server is None:
            raise error(f"there is no server {server_id}")
        return server

    def reindex(self, server: Server) -> None:
        """Report a server's changed load to the routing indexes in use."""
        if self.by_load is not None:
            self.by_load.update(server.server_id, len(server.rollouts))
        if self.by_kv is not None:
            self.by_kv.update(server.server_id, server.known_kv_tokens)

    def leave_server(self, rollout: Rollout) -> None:
        """Take a rollout off its server; call before its generated tokens are updated."""
        server = self.servers[rollout.server_id]
        on_server = server.rollouts
        del on_server[rollout.rollout_id]
        server.known_kv_tokens -= rollout.group.prompt_tokens + rollout.generated_tokens
        self.running -= 1
        # reindex(), written out: this is done once a trajectory.
        if self.by_load is not None:
            self.by_load.update(server.server_id, len(on_server))
        if self.by_kv is not None:
            self.by_kv.update(server.server_id, server.known_kv_tokens)

    def lessen(self, group: Group, rollouts: int) -> None:
        """So many fewer rollouts of the group are still to be accepted."""
        if rollouts:
            group.outstanding -= rollouts
            if not group.outstanding:
                self.open_groups -= 1
                if group.ready and not group.abandoned:
                    self.complete_groups[group.group_id] = group

    def fail(self, rollout: Rollout) -> None:
        """Settle a rollout that failed before it was READY; its group wants another or gives up.

        An aborted one is settled only: nothing went wrong, and nobody wants another.
        """
        group = rollout.group
        self.failed += 1
        if rollout.phase is Phase.ABORTING:
            self.lessen(group, 1)
        else:
            group.failures += 1
            if group.abandoned or group.failures > self.limits.max_failures_per_group:
                if not group.abandoned:
                    group.abandoned = True
                    self.abandoned_groups[group.group_id] = group
                    self.pending.pop(group.group_id, None)
                    never_started, group.unstarted = group.unstarted, 0
                    self.lessen(group, never_started)
                self.lessen(group, 1)
            else:
                group.unstarted += 1
                self.pending[group.group_id] = group
                self.pending.move_to_end(group.group_id, last=False)
        self.settle(rollout, Phase.FAILED)
        if self.on_settled is not None:
            self.on_settled((rollout,))

    def settle(self, rollout: Rollout, phase: Phase) -> None:
        """Take a rollout out of the live state, for good."""
        rollout.phase = phase
        rollout.settled_ns = self.now_ns
        del self.rollouts[rollout.rollout_id]
        group = rollout.group
        del group.rollouts[rollout.rollout_id]
        if not group.rollouts and not group.unstarted:
            self.groups.pop(group.group_id, None)
            self.abandoned_groups.pop(group.group_id, None)
