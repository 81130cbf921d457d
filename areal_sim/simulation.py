"""One simulated run, from a set-up to its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from simpy.core import EmptySchedule

from areal_sched.controller import Controller, Record, Scheduler
from areal_sched.errors import ArealError
from areal_sched.ids import ServerId
from areal_sched.limits import Limits
from areal_sched.measurements import Measurement
from areal_sched.packing import PackedStep
from areal_sched.records import Rollout
from areal_sched.state import SettledHook
from areal_sim.clock import Clock
from areal_sim.costs.protocol import CostProvider, ServerCost
from areal_sim.engine import Engine
from areal_sim.executor import SimExecutor
from areal_sim.fault_schedule import FaultSchedule, Network
from areal_sim.faults import NS_PER_S, Faults, start_losses, stragglers
from areal_sim.feed import PromptFeed
from areal_sim.host import SharedHost, SharingTrainer
from areal_sim.loading import SharedLoads
from areal_sim.remote import RemoteServer
from areal_sim.rewarder import Rewarder
from areal_sim.server import Server
from areal_sim.trainer import Trainer
from traces import WorkloadSource


class SimulationError(ArealError):
    """The simulated run cannot go on, or did not add up: a bug of a scheduler or of ours."""


class NoServerLeft(SimulationError):
    """All servers are lost for good, as the faults of the run would have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Everything a simulated run is made of.

    Attributes:
        limits: bounds the state enforces.
        steps: training steps to simulate.
        servers: inference servers.
        colocated: whether trainer and servers share all GPUs.
        max_running_rollouts, kv_cache_tokens, prefill_chunk_tokens, kv_reserve_tokens: of one
            server, see `areal_sim.engine.Engine`.
        costs: where times come from.
        layout: packs one step's sequence lengths; see `areal_sched.packing.pack`.
        source: prompt and response lengths.
        max_response_tokens: answers this long end for reason ``length``.
        reward_workers: rewards computed at a time.
        reward_service_s: mean service time of one; 0 answers at once.
        reward_service_variation: coefficient of variation of a lognormal around it; 0 is constant.
        save_s: takes the version made and the nanoseconds since the last such pause or the start,
            gives the seconds of saving and evaluating.
        recompute_proximal: False leaves the proximal pass out.
        faults: what goes wrong.
        seed: of everything random but the workload, which brings its own.
    """

    limits: Limits
    steps: int
    servers: int
    colocated: bool
    max_running_rollouts: int
    kv_cache_tokens: int
    prefill_chunk_tokens: int
    kv_reserve_tokens: int = 1
    costs: CostProvider
    layout: Callable[[Sequence[int]], PackedStep]
    source: WorkloadSource
    max_response_tokens: int
    reward_workers: int = 1
    reward_service_s: float = 0.0
    reward_service_variation: float = 0.0
    save_s: Callable[[int, int], float] = field(default=lambda version, since_ns: 0.0)
    recompute_proximal: bool = True
    faults: Faults = field(default_factory=Faults)
    seed: int = 1


class Simulation:
    """One run. Build it, `run` it (again and again, if interrupted), `close` it.

    Args:
        setup: what to simulate.
        scheduler: decides; built with ``setup.limits``.
        record: see `areal_sched.controller.Controller`.
        measure: takes (now_ns, measurement).
        on_settled: called with rollouts that were trained, failed or dropped.

    Attributes:
        simpy_events: events that went through SimPy's queue so far.
        faults: the schedule of faults as it happens.
    """

    def __init__(
        self,
        setup: Setup,
        scheduler: Scheduler,
        *,
        record: Record | None = None,
        measure: Callable[[int, Measurement], None] | None = None,
        on_settled: SettledHook | None = None,
    ) -> None:
        self.setup = setup
        self.env = env = Clock()
        self.simpy_events = 0
        self._closed = False

        def settled(rollouts: Sequence[Rollout]) -> None:
            self.executor.settled(rollouts)
            if on_settled is not None:
                on_settled(rollouts)

        self.controller = Controller(scheduler, setup.limits, record, settled)
        self.state = self.controller.state
        self.executor = SimExecutor(
            env,
            self.controller,
            PromptFeed(setup.source, setup.limits.group_size),
            measure or (lambda now_ns, measurement: None),
            length_limit_tokens=setup.max_response_tokens,
        )
        self._share()
        self.executor.rewarder = Rewarder(
            env,
            setup.reward_workers,
            self._service_times(),
            self.executor.rewarded,
            self.executor.end_instant,
        )
        self._network = Network()
        share_s = setup.costs.weight_load_shared_s()
        self._loads = SharedLoads(share_s / setup.costs.weight_load_s()) if share_s else None
        self._add_servers()
        start_losses(env, self.executor, setup.faults, setup.servers, setup.seed)
        self.faults = FaultSchedule(env, self.executor, self._network, self._join_server)
        self.faults.start(setup.faults.schedule)
        self.executor.begin()

    def _share(self) -> None:
        """Make the trainer, and say how servers are made: with or without a machine in common."""
        setup, executor = self.setup, self.executor
        client, host = setup.costs.client(), setup.costs.host()
        shared = None if host.cores is None else SharedHost(self.env, host.cores)
        if shared is None:
            executor.trainer = Trainer(
                self.env,
                executor,
                setup.costs,
                setup.layout,
                setup.save_s,
                colocated=setup.colocated,
                recompute_proximal=setup.recompute_proximal,
            )
        elif setup.colocated:
            raise SimulationError("costs.host: a machine in common is not modelled with colocation")
        else:
            executor.trainer = SharingTrainer(
                self.env,
                executor,
                setup.costs,
                setup.layout,
                setup.save_s,
                recompute_proximal=setup.recompute_proximal,
                shared=shared,
                cores=host.trainer_cores,
            )
        if shared is not None or not client.nothing:
            executor.new_server = partial(
                RemoteServer, client=client, shared=shared, cores=host.server_cores
            )

    def _add_servers(self) -> None:
        setup = self.setup
        cost = setup.costs.server()
        slow = stragglers(setup.faults, setup.servers, setup.seed)
        slow_cost = cost.slowed(setup.faults.straggler_slowdown)
        for number in range(setup.servers):
            self._add_server(slow_cost if number in slow else cost)

    def _add_server(self, cost: ServerCost) -> Server:
        """One more server, numbered on."""
        setup, network = self.setup, self._network
        load_ns = round(setup.costs.weight_load_s() * setup.faults.slow_network_factor * NS_PER_S)

        def new_engine() -> Engine:
            return Engine(
                cost,
                max_running_rollouts=setup.max_running_rollouts,
                kv_cache_tokens=setup.kv_cache_tokens,
                prefill_chunk_tokens=setup.prefill_chunk_tokens,
                kv_reserve_tokens=setup.kv_reserve_tokens,
            )

        return self.executor.add_server(
            ServerId(len(self.executor.servers)),
            new_engine,
            lambda: load_ns if network.slowness == 1.0 else round(load_ns * network.slowness),
            self._loads,
        )

    def _join_server(self) -> None:
        self.executor.join_server(self._add_server(self.setup.costs.server()))

    def _service_times(self) -> Callable[[], int]:
        setup = self.setup
        mean_ns = setup.reward_service_s * NS_PER_S
        if setup.reward_service_variation == 0 or mean_ns == 0:
            constant_ns = round(mean_ns)
            return lambda: constant_ns
        variance = float(np.log1p(setup.reward_service_variation**2))
        rng = np.random.Generator(np.random.Philox(key=[setup.seed, 3]))
        mu = float(np.log(mean_ns)) - variance / 2
        return lambda: round(rng.lognormal(mu, variance**0.5))

    @property
    def now_ns(self) -> int:
        """Simulated time."""
        return int(self.env.now)

    @property
    def events(self) -> int:
        """What has happened so far: SimPy's events, each alarm counted where many shared one."""
        return self.simpy_events - self.env.agenda.fired + self.env.agenda.rung

    @property
    def finished(self) -> bool:
        """Whether the requested steps are done."""
        return self.state.weight_version >= self.setup.steps

    def run(self, most_events: int | None = None) -> bool:
        """Go on, for at most so many `events`; returns whether the run is finished.

        Raises:
            NoServerLeft: no server is left to go on with, and none will be back.
            SimulationError: nothing is left to happen, but the steps are not done (a deadlock).
        """
        env = self.env
        state, steps = self.state, self.setup.steps
        end = self.events + most_events if most_events is not None else 1 << 62
        try:
            while state.weight_version < steps and (left := end - self.events) > 0:
                env.agenda.most = left
                self.simpy_events += 1
                env.step()
        except EmptySchedule:
            if not state.servers:
                raise NoServerLeft(
                    f"no server is left at {state.now_ns / NS_PER_S:.3f} s, and none will be back:"
                    f" {state.weight_version} of {steps} training steps are done"
                ) from None
            raise SimulationError(self._deadlock()) from None
        return self.finished

    def close(self) -> None:
        """End the run where it stands: report open spans, check that nothing was lost.

        Raises:
            SimulationError: rollouts are unaccounted for.
        """
        if self._closed:
            return
        self._closed = True
        self.executor.close()
        state = self.state
        counted = len(state.rollouts) + state.trained + state.failed + state.dropped
        if not self.executor.started == state.next_rollout_id == counted:
            raise SimulationError(
                f"{self.executor.started} rollouts started, {state.next_rollout_id} known to the "
                f"state, {counted} accounted for"
            )

    def whereabouts(self) -> str:
        """Where everything stands, for messages."""
        s = self.state
        facts: Mapping[str, object] = {
            "version": s.weight_version,
            "trainer_ready": s.trainer_ready,
            "in_step": s.in_step,
            "servers": len(s.servers),
            "running": s.running,
            "interrupted": len(s.interrupted),
            "awaiting_reward": s.awaiting_reward,
            "ready": len(s.ready),
            "may_start": s.may_start(),
            "pending_groups": len(s.pending),
            "open_groups": s.open_groups,
        }
        return ", ".join(f"{name} {value}" for name, value in facts.items())

    def _deadlock(self) -> str:
        return (
            f"deadlock at {self.now_ns / NS_PER_S:.3f} s: nothing is left to happen and the "
            f"scheduler asks for nothing ({self.whereabouts()})"
        )
