"""Plays a fault schedule: at their times, faults happen to servers, trainer and reward workers.

What happens is in `areal_sim.config.fault_schedule.KINDS`. A server that is down already, hangs or
has not joined yet is passed over. Several faults at one time happen in the order of the schedule.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from functools import partial

from areal_sched.ids import ServerId
from areal_sim.clock import Clock
from areal_sim.config.fault_schedule import ScheduledFault
from areal_sim.executor import SimExecutor

NS_PER_S = 1_000_000_000

REFUSED = "the server failed"
"""Reason of rollouts that fail by `rollouts_failed`."""


class Network:
    """How fast weights are loaded. ``slowness``: loads that begin take so many times as long."""

    def __init__(self) -> None:
        self.slowness = 1.0


class FaultSchedule:
    """Faults of one run.

    Args:
        env: the simulation.
        executor: of the run.
        network: of the run.
        join: adds another server and lets it join.

    Attributes:
        happened: how many faults of each kind did happen, and were not passed over.
    """

    def __init__(
        self, env: Clock, executor: SimExecutor, network: Network, join: Callable[[], None]
    ) -> None:
        self._env = env
        self._executor = executor
        self._network = network
        self._join = join
        self.happened: Counter[str] = Counter()
        # By server and, for the network, by None: the factors that hold now.
        self._factors: dict[int | None, list[float]] = defaultdict(list)
        self._downs: Counter[int] = Counter()  # by server: what was begun for an earlier is void
        self._rewards: deque[float | None] = deque()  # of those to come: seconds late; None: fails
        self._computed: Callable[[int], None] = executor.rewarded
        self._happen: dict[str, Callable[[ScheduledFault], bool]] = {
            "server_lost": self._server_lost,
            "server_hung": self._server_hung,
            "server_slow": self._server_slow,
            "servers_join": self._servers_join,
            "connections_lost": partial(self._rollouts_stop, reason=None),
            "rollouts_failed": partial(self._rollouts_stop, reason=REFUSED),
            "weights_slow": self._weights_slow,
            "trainer_lost": self._trainer_lost,
            "rewards_failed": self._rewards_go_wrong,
            "rewards_late": self._rewards_go_wrong,
        }

    def start(self, faults: Iterable[ScheduledFault]) -> None:
        """Let these happen; call it before the run begins."""
        for fault in faults:
            self._after(fault.at_s, partial(self._now, fault))

    def _after(self, seconds: float | None, act: Callable[[], None]) -> None:
        """Act so much later; None: never."""
        if seconds is not None:
            later = self._env.timeout(round(seconds * NS_PER_S))
            later.callbacks.append(lambda _: act())

    def _now(self, fault: ScheduledFault) -> None:
        if self._happen[fault.fault](fault):
            self.happened[fault.fault] += 1

    # ---- servers -------------------------------------------------------------------------------

    def _server_lost(self, fault: ScheduledFault) -> bool:
        server_id = _server_of(fault)
        # One that hangs may yet die.
        if not self._executor.is_up(server_id) and not self._executor.hangs(server_id):
            return False
        self._downs[server_id] += 1
        self._lose(server_id, fault)
        return True

    def _server_hung(self, fault: ScheduledFault) -> bool:
        server_id = _server_of(fault)
        if not self._executor.is_up(server_id):
            return False
        self._downs[server_id] += 1
        down = self._downs[server_id]
        self._executor.hang_server(server_id)

        def found() -> None:
            if down == self._downs[server_id]:
                self._lose(server_id, fault)

        self._after(fault.found_after_s, found)
        return True

    def _lose(self, server_id: ServerId, fault: ScheduledFault) -> None:
        if fault.for_s is None:
            self._executor.gone.add(server_id)
        self._executor.lose_server(server_id)
        self._after(fault.for_s, partial(self._executor.return_server, server_id))

    def _server_slow(self, fault: ScheduledFault) -> bool:
        server_id = _server_of(fault)
        if not self._executor.is_up(server_id):
            return False

        def apply() -> None:
            factor = math.prod(self._factors[server_id])
            self._executor.servers[server_id].slow_down(factor)
            self._executor.end_instant()

        self._for_a_while(fault, server_id, apply)
        return True

    def _servers_join(self, fault: ScheduledFault) -> bool:
        for _ in range(fault.count):
            self._join()
        return True

    def _rollouts_stop(self, fault: ScheduledFault, reason: str | None) -> bool:
        server_id = _server_of(fault)
        if not self._executor.is_up(server_id):
            return False
        return self._executor.break_rollouts(server_id, fault.count, reason) > 0

    # ---- the rest ------------------------------------------------------------------------------

    def _weights_slow(self, fault: ScheduledFault) -> bool:
        def apply() -> None:
            self._network.slowness = math.prod(self._factors[None])

        self._for_a_while(fault, None, apply)
        return True

    def _for_a_while(
        self, fault: ScheduledFault, whose: int | None, apply: Callable[[], None]
    ) -> None:
        """Let a factor hold; several at a time are multiplied."""
        factors = self._factors[whose]
        factors.append(fault.factor)
        apply()

        def end() -> None:
            factors.remove(fault.factor)
            apply()

        self._after(fault.for_s, end)

    def _trainer_lost(self, fault: ScheduledFault) -> bool:
        assert fault.for_s is not None
        return self._executor.trainer.lose(round(fault.for_s * NS_PER_S))

    def _rewards_go_wrong(self, fault: ScheduledFault) -> bool:
        late_s = fault.for_s if fault.fault == "rewards_late" else None
        self._rewards += [late_s] * fault.count
        self._executor.rewarder.computed = self._reward
        return True

    def _reward(self, rollout_id: int) -> None:
        """A reward would be computed now."""
        late_s = self._rewards.popleft()
        if not self._rewards:
            self._executor.rewarder.computed = self._computed
        if late_s is None:
            self._executor.reward_failed(rollout_id)
            return

        def comes() -> None:
            self._computed(rollout_id)
            self._executor.end_instant()

        self._after(late_s, comes)


def _server_of(fault: ScheduledFault) -> ServerId:
    assert fault.server is not None
    return ServerId(fault.server)
