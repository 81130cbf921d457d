"""Random small worlds for the simulator: sizes, costs, faults, and what is done to its servers."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from analysis.accounts import accounts
from analysis.audit import JournalAudit
from analysis.tiling import check_tiling
from areal_sched import JournalReader, Limits, ServerId, load, replay
from areal_sim.costs.protocol import ClientCost, HostCost, ServerCost
from areal_sim.executor import BACKLOG_GROUPS
from areal_sim.faults import Faults
from areal_sim.simulation import Setup
from benchmarks.variations import accepted, agreeing, options_of, unit_of
from tests.sim.setups import (
    Listed,
    Ran,
    begin,
    constant_lengths,
    costs,
    drawn_lengths,
    header,
    setup,
    trainer_cost,
)

MOST_EVENTS = 60_000
"""SimPy events in which a small world must come to its end; they take a few hundred."""

US = 1e-6
"""Seconds of a microsecond: about a decode step here."""


@dataclass(frozen=True)
class World:
    """One run to make, reproducible from what is printed of it.

    Attributes:
        spread: answers have 1 to ``tokens`` tokens; otherwise all have ``tokens``.
        rooms: answers of full length that fit into a server's KV cache.
        server_fs: fields of `ServerCost`.
        trainer_s: step, publish, load, switch and save.
        load_share: what one more load adds to each, of its time alone.
        client_s: fields of `ClientCost`.
        host: fields of `HostCost`; never with ``colocated``.
        reward: workers, service seconds, variation.
        actions: (SimPy events to let pass, "lose" or "return", servers); faults are off then.
    """

    path: str
    limits: Limits
    options: dict[str, Any]
    steps: int
    servers: int
    colocated: bool
    tokens: int
    spread: bool
    prompt_tokens: int
    max_running: int
    rooms: int
    chunk: int
    server_fs: tuple[int, ...]
    trainer_s: tuple[float, ...]
    reward: tuple[int, float, float]
    faults: Faults
    actions: tuple[tuple[int, str, frozenset[int]], ...]
    seed: int
    load_share: float = 0.0
    client_s: tuple[float, ...] = (0.0,) * 7
    host: tuple[float | None, float, float] = (None, 0.0, 0.0)

    def source(self) -> Listed:
        if not self.spread:
            return constant_lengths(self.tokens, self.prompt_tokens)

        def draw(rng: np.random.Generator) -> int:
            return int(rng.integers(1, self.tokens + 1))

        return drawn_lengths(self.seed, draw, self.prompt_tokens)

    def setup(self) -> Setup:
        step_s, publish_s, load_s, switch_s, save_s = self.trainer_s
        workers, service_s, variation = self.reward
        return setup(
            self.limits,
            steps=self.steps,
            servers=self.servers,
            colocated=self.colocated,
            max_running_rollouts=self.max_running,
            kv_cache_tokens=(self.prompt_tokens + self.tokens + 1) * self.rooms,
            prefill_chunk_tokens=self.chunk,
            costs=replace(
                costs(
                    ServerCost(**named(ServerCost, self.server_fs)),
                    trainer_cost(step_s, update_per_token_s=step_s / 50),
                    publish_s=publish_s,
                    load_s=load_s,
                    load_shared_s=load_s * self.load_share,
                    switch_s=switch_s,
                ),
                client_cost=ClientCost(**named(ClientCost, self.client_s)),
                host_cost=HostCost(**named(HostCost, self.host)),
            ),
            source=self.source(),
            max_response_tokens=self.tokens,
            reward_workers=workers,
            reward_service_s=service_s,
            reward_service_variation=variation,
            save_s=lambda version, _: save_s * (version % 2),
            faults=self.faults,
            seed=self.seed,
        )


def named(cls: type, values: tuple[Any, ...]) -> dict[str, Any]:
    """Values by the names of a class's first fields."""
    return dict(zip(cls.__slots__, values, strict=False))  # type: ignore[attr-defined]


@st.composite
def worlds(draw: Callable[[st.SearchStrategy[Any]], Any], path: str) -> World:
    """Limits and options the scheduler takes, and any world around it."""
    group_size = draw(st.integers(1, 3))
    limits = Limits(
        train_batch_rollouts=group_size * draw(st.integers(1, 3)),
        group_size=group_size,
        eta=draw(st.sampled_from((0, 1, 2, 4, None))),
        max_lag=draw(st.sampled_from((None, None, 0, 1, 3))),
        max_rollouts_in_flight=group_size * draw(st.integers(1, 6)) + draw(st.integers(0, 1)),
    )
    vary = options_of(path)
    options = agreeing({name: draw(st.sampled_from(values)) for name, values in vary.items()})
    servers = draw(st.integers(1, 3))
    which = st.frozensets(st.integers(0, servers - 1), min_size=1)
    action = st.tuples(st.integers(0, 40), st.sampled_from(("lose", "return")), which)
    actions = tuple(draw(st.lists(action, max_size=8)))
    failing = not actions and draw(st.booleans())
    limits = accepted(path, limits, options)
    tokens = draw(st.integers(1, 30))  # answers of one token come with the prefill alone
    durations = st.sampled_from((0.0, US, 2 * US, 20 * US, 100 * US))
    reward = (draw(st.integers(1, 3)), draw(durations))
    if limits.eta is None:
        # Nothing bounds the queue of the reward workers, so they must be faster than the servers.
        reward = (64, min(reward[1], 2 * US))
    colocated = draw(st.sampled_from((False, False, True)))
    # Half of the worlds have nothing between scheduler and engines, and no machine in common.
    client_s: tuple[float, ...] = (0.0,) * 7
    if draw(st.booleans()):
        client_s = tuple(draw(st.sampled_from((0.0, 0.3 * US, 5 * US))) for _ in client_s)
    host: tuple[float | None, float, float] = (None, 0.0, 0.0)
    if not colocated and draw(st.booleans()):
        host = draw(st.sampled_from(((2.0, 1.7, 1.0), (1.0, 1.0, 0.0), (100.0, 1.0, 1.0))))
    return World(
        path=path,
        limits=limits,
        options=options,
        steps=draw(st.integers(1, 5)),
        servers=servers,
        colocated=colocated,
        tokens=tokens,
        spread=draw(st.booleans()),
        prompt_tokens=draw(st.integers(1, 10)),
        max_running=draw(st.integers(1, 6)),
        rooms=draw(st.integers(1, 6)),
        chunk=draw(st.sampled_from((3, 16, 1000))),
        server_fs=(
            draw(st.sampled_from((10**9, 1_234_567_891))),
            draw(st.sampled_from((0, 10**8, 98_765_432))),
            draw(st.sampled_from((0, 1_234_567))),
            draw(st.sampled_from((0, 10**9, 999_999_999) if tokens > 1 else (10**9,))),
            draw(st.sampled_from((0, 10**6, 123_456_789))),
            draw(st.sampled_from((0, 777))),
            draw(st.sampled_from((0, 10**7, 7_654_321))),
        ),
        trainer_s=tuple(draw(durations) for _ in range(5)),
        load_share=draw(st.sampled_from((0.0, 0.0, 0.3, 1.0))),
        client_s=client_s,
        host=host,
        reward=(*reward, draw(st.sampled_from((0.0, 1.0)))),
        faults=Faults(
            server_mean_time_between_failures_s=draw(st.sampled_from((60 * US, 600 * US)))
            if failing
            else None,
            server_repair_s=draw(st.sampled_from((0.0, 3 * US, 100 * US))),
            straggler_share=draw(st.sampled_from((0.0, 0.5, 1.0))),
            straggler_slowdown=draw(st.sampled_from((1.0, 3.3))),
            slow_network_factor=draw(st.sampled_from((1.0, 10.0))),
        ),
        actions=actions,
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def live_through(world: World) -> Ran:
    """Run a world: first its actions, then, with all servers back, to its end.

    Raises:
        AssertionError: it does not come to an end.
    """
    run = begin(world.setup(), world.path, world.options)
    executor, simulation = run.simulation.executor, run.simulation
    for events, what, which in world.actions:
        for _ in range(events):
            # Without a server there may be nothing to happen until one is returned.
            if simulation.env.peek() < math.inf:
                simulation.run(1)
        if simulation.finished:
            break
        for number in sorted(which):
            alive = executor.servers[ServerId(number)].alive
            if what == "lose" and alive:
                executor.lose_server(ServerId(number))
            elif what == "return" and not alive:
                executor.return_server(ServerId(number))
    if world.actions:
        for number, server in executor.servers.items():
            if not server.alive:
                executor.return_server(number)
    assert simulation.run(MOST_EVENTS), f"no end in sight: {simulation.whereabouts()}"
    return run.end()


def check(world: World) -> tuple[Ran, JournalAudit]:
    """Run a world and check everything that must hold whatever happens in it."""
    run = live_through(world)
    state = run.simulation.state
    whole = unit_of(world.path, world.options, world.limits) == "group"
    with tempfile.TemporaryDirectory() as folder:
        reader = JournalReader(run.save(Path(folder)))
        entries = list(reader.entries())
    assert not reader.truncated
    assert entries == [replace(e, line=r.line) for e, r in zip(run.entries, entries, strict=True)]
    again = load(world.path, world.limits, world.options)
    assert replay(entries, again, world.limits) == len(entries)

    audit = JournalAudit(world.limits, whole, BACKLOG_GROUPS).read(entries)
    counted = (audit.count("trained"), audit.count("failed"), audit.count("dropped"))
    assert counted == (state.trained, state.failed, state.dropped)
    assert sorted(state.rollouts) == audit.live()
    assert run.simulation.executor.started == len(audit.live()) + sum(counted)
    assert audit.version == world.steps
    assert state.trained == world.steps * world.limits.train_batch_rollouts

    check_answers(world, audit)
    check_tiling(run.recorder)
    account = accounts(run.recorder)
    gpus = header(run.setup, world.path, world.options)["run"]["gpus"]
    assert sum(account.gpu_ns.values()) == gpus * run.now_ns
    return run, audit


def check_answers(world: World, audit: JournalAudit) -> None:
    """Answers have the workload's lengths, and their tokens have taken their time.

    Of each stint on a server the first token comes with the prefill and every other one costs a
    decode step; where a KV cache has to make room, further ones may come with a prefill.
    """
    lengths = world.source().lengths
    for told, event in audit.finished:
        assert event.generated_tokens == lengths(told.group_id, told.sample)
        assert (event.finish_reason == "length") == (event.generated_tokens >= world.tokens)
    if world.rooms >= world.max_running:
        step_fs = world.server_fs[0] + world.server_fs[1]
        for spent_ns, tokens in audit.stints:
            assert spent_ns * 10**6 >= (tokens - 1) * step_fs, "tokens out of nothing"
