"""Random small runs with random fault schedules, each drawn from one seed.

The times of faults are not only drawn evenly: the same run without faults is simulated first, and
faults come at its very instants, inside its weight loads, in its first and in its last step, and
while rollouts are being aborted or interrupted. After the first fault the run goes another way, so
that later ones come at any moment.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from areal_sched import Limits
from areal_sched.config.options import toml_value
from areal_sched.packing import pack
from areal_sim.config.fault_schedule import KINDS, ScheduledFault
from areal_sim.costs import FittedCosts, ServerCost, TrainerCost
from areal_sim.costs.protocol import ClientCost, HostCost
from areal_sim.faults import NS_PER_S, Faults
from areal_sim.simulation import Setup
from benchmarks.variations import Refused, accepted, agreeing, options_of, schedulers, unit_of
from traces import GroupBatch

MOST_FAULTS = 9
"""Faults of one schedule."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """A workload: answers of 1 to ``most`` tokens, each drawn from seed, group and sample."""

    seed: int
    most: int
    prompt_tokens: int

    def groups(self, first_group: int, count: int, *, group_size: int, step: float) -> GroupBatch:
        """See `traces.WorkloadSource`."""
        key = [self.seed, first_group]
        rng = np.random.Generator(np.random.Philox(key=key))
        return GroupBatch(
            np.full(count, self.prompt_tokens, np.int64),
            rng.integers(1, self.most + 1, size=(count, group_size)),
        )


@dataclass(frozen=True, slots=True)
class Case:
    """One run to make.

    Attributes:
        path, options: the scheduler.
        setup: all the rest; its faults are the schedule's.
    """

    seed: int
    path: str
    options: dict[str, Any]
    setup: Setup

    @property
    def groups_whole(self) -> bool:
        """Whether each group must be trained in one step."""
        return unit_of(self.path, self.options, self.setup.limits) == "group"

    def with_faults(self, faults: Faults) -> Case:
        """The same with other faults."""
        return dataclasses.replace(self, setup=dataclasses.replace(self.setup, faults=faults))

    def __str__(self) -> str:
        """In words and TOML, for whoever looks into it."""
        setup = self.setup
        schedule = "".join(f"\n    {toml_value(fault.table())}," for fault in setup.faults.schedule)
        drawn = str(dataclasses.replace(setup.faults, schedule=())).replace(", schedule=()", "")
        place = "colocated" if setup.colocated else "separate"
        return (
            f"seed {self.seed}: {self.path} {self.options}\n{setup.limits}\n"
            f"{setup.steps} steps, {setup.servers} servers, {place}\n{drawn}\n"
            f"schedule = [{schedule}\n]"
        )


def draw_case(seed: int) -> Case:
    """The case of a seed, without faults as yet.

    Every scheduler has its turn; limits and options are such that it takes them.
    """
    rng = random.Random(seed)
    paths = schedulers()
    path = paths[seed % len(paths)]
    group_size = rng.randint(1, 4)
    limits = Limits(
        train_batch_rollouts=group_size * rng.randint(1, 4),
        group_size=group_size,
        eta=rng.choice((0, 1, 2, 4, None)),
        max_lag=rng.choice((None, None, 0, 1, 3)),
        max_rollouts_in_flight=group_size * rng.randint(1, 8) + rng.randint(0, 1),
        max_failures_per_group=rng.choice((0, 1, 3)),
    )
    while True:
        options = agreeing({name: rng.choice(values) for name, values in options_of(path).items()})
        try:
            limits = accepted(path, limits, options)
            break
        except Refused:
            continue
    return Case(seed, path, options, _draw_setup(rng, limits, seed))


def _draw_setup(rng: random.Random, limits: Limits, seed: int) -> Setup:
    colocated = rng.random() < 0.25
    tokens, prompt_tokens = rng.randint(1, 40), rng.randint(1, 10)
    # Where eta bounds nothing, servers answer without end while the trainer is in a step: rewards
    # must be faster than they are, steps short, and no answer may come at once.
    bounded = limits.eta is not None
    durations = (0.0, 0.01, 0.05, 0.3, 2.0) if bounded else (0.0, 0.01, 0.05)
    reward_s = rng.choice(durations if bounded else (0.0, 0.01))
    return Setup(
        limits=limits,
        steps=rng.randint(2, 6),
        servers=rng.randint(1, 4),
        colocated=colocated,
        max_running_rollouts=rng.randint(1, 8),
        kv_cache_tokens=(prompt_tokens + tokens + 1) * rng.randint(1, 8),
        prefill_chunk_tokens=rng.choice((3, 16, 1000)),
        costs=_draw_costs(rng, durations, colocated, instant_prefill=bounded),
        layout=_one_micro_batch,
        source=Lengths(seed, tokens, prompt_tokens),
        max_response_tokens=tokens,
        reward_workers=rng.randint(1, 3) if bounded else 64,
        reward_service_s=reward_s,
        reward_service_variation=rng.choice((0.0, 1.0)),
        save_s=_every_other(rng.choice(durations)),
        seed=seed,
    )


def _draw_costs(
    rng: random.Random, durations: Sequence[float], colocated: bool, *, instant_prefill: bool
) -> FittedCosts:
    """Decode steps of some 10 ms, training steps of up to 2 s, in half of the cases a client."""
    fs = 10**12  # 1 ms
    client = ClientCost()
    if rng.random() < 0.5:
        fields = dataclasses.fields(ClientCost)
        client = ClientCost(**{f.name: rng.choice((0.0, 0.003, 0.05)) for f in fields})
    host = HostCost()
    if not colocated and rng.random() < 0.3:
        cores, trainer, server = rng.choice(((2.0, 1.7, 1.0), (1.0, 1.0, 0.0), (100.0, 1.0, 1.0)))
        host = HostCost(cores=cores, trainer_cores=trainer, server_cores=server)
    return FittedCosts(
        server_cost=ServerCost(
            decode_base_fs=rng.choice((10 * fs, 12_345_678_912_345)),
            decode_per_rollout_fs=rng.choice((0, fs)),
            decode_per_kv_token_fs=rng.choice((0, fs // 100)),
            prefill_base_fs=rng.choice((0, 9 * fs)) if instant_prefill else 9 * fs,
            prefill_per_token_fs=rng.choice((0, fs // 10)),
            prefill_per_token_pair_fs=rng.choice((0, 777)),
        ),
        trainer_cost=TrainerCost(
            update_base_s=rng.choice(durations),
            update_per_token_s=rng.choice((0.0, 0.001)),
            update_per_token_pair_s=0.0,
            forward_base_s=rng.choice(durations),
            forward_per_token_s=0.0,
            forward_per_token_pair_s=0.0,
            pipeline_stages=1,
            optimizer_s=rng.choice(durations),
            step_overhead_s=rng.choice(durations),
        ),
        publish_s=rng.choice(durations),
        load_s=(load_s := rng.choice(durations)),
        load_shared_s=rng.choice((0.0, load_s / 3)),
        to_generate_s=rng.choice(durations),
        to_train_s=rng.choice(durations),
        source="drawn",
        client_cost=client,
        host_cost=host,
    )


def _one_micro_batch(sizes: Sequence[int]) -> list[list[list[list[int]]]]:
    return pack(sizes, capacity=1 << 40, ranks=1)


def _every_other(save_s: float) -> Any:
    return lambda version, since_ns: save_s * (version % 2)


@dataclass(frozen=True, slots=True)
class Timeline:
    """What the times of faults are drawn from, of the run without faults, in nanoseconds.

    Attributes:
        instants: of all events.
        loads: begin and end of weight loads.
        steps: begin and end of training steps.
        stops: from aborts and interruptions on, as long as they may take.
        end_ns: of the run.
    """

    instants: Sequence[int]
    loads: Sequence[tuple[int, int]]
    steps: Sequence[tuple[int, int]]
    stops: Sequence[tuple[int, int]]
    end_ns: int


def draw_faults(case: Case, timeline: Timeline) -> Faults:
    """Faults for a case; see the module."""
    rng = random.Random(case.seed ^ 0x5EED)
    servers = case.setup.servers
    kinds = [kind for kind in KINDS if kind != "servers_join" or not case.setup.colocated]
    schedule: list[ScheduledFault] = []
    at_ns = 0
    for _ in range(rng.randint(1, MOST_FAULTS)):
        if not schedule or rng.random() > 0.3:  # else at the same instant as the one before
            at_ns = _draw_time(rng, timeline)
        kind = rng.choice(kinds)
        fault = _draw_fault(rng, kind, at_ns, servers, timeline.end_ns / NS_PER_S)
        schedule.append(fault)
        servers += fault.count if kind == "servers_join" else 0
    mean_s = None
    if rng.random() < 0.1:
        mean_s = max(timeline.end_ns / NS_PER_S, 0.1) * rng.choice((0.5, 2.0))
    return Faults(
        server_mean_time_between_failures_s=mean_s,
        server_repair_s=rng.choice((0.0, 0.02, 0.5)),
        straggler_share=rng.choice((0.0, 0.0, 0.5, 1.0)),
        straggler_slowdown=3.3,
        slow_network_factor=rng.choice((1.0, 1.0, 5.0)),
        schedule=tuple(schedule),
    )


def _draw_time(rng: random.Random, timeline: Timeline) -> int:
    where = rng.choice(("instant", "load", "load", "first", "last", "stop", "any", "any"))
    if where == "instant":
        return rng.choice(timeline.instants)
    spans = {
        "load": timeline.loads,
        "first": timeline.steps[:1],
        "last": timeline.steps[-1:],
        "stop": timeline.stops,
    }
    if spans.get(where):
        begin_ns, end_ns = rng.choice(spans[where])
        return rng.randint(begin_ns, end_ns)
    return rng.randint(0, timeline.end_ns)


def _draw_fault(
    rng: random.Random, kind: str, at_ns: int, servers: int, run_s: float
) -> ScheduledFault:
    keys = KINDS[kind]
    values: dict[str, Any] = {"at_s": at_ns / NS_PER_S, "fault": kind}
    spans = (0.0, 1e-9, 0.005, 0.05, 0.5, run_s / 4)
    for key in keys.keys:
        if key == "server":
            values[key] = rng.randrange(servers)
        elif key == "for_s":
            endless = key not in keys.needs and rng.random() < 0.2
            values[key] = None if endless else rng.choice(spans)
        elif key == "found_after_s":
            values[key] = rng.choice(spans)
        elif key == "factor":
            values[key] = rng.choice((1.0, 1.7, 4.0))
        elif key == "count":
            values[key] = rng.randint(1, 2 if kind == "servers_join" else 6)
    return ScheduledFault(**values)
