"""Plays a script of arrivals, interruptions, holds and losses against engines of either kind.

The calls are those of a simulated server, in the same order: `advance` to this instant, answer what
finished, submit, act at boundaries, `plan` once at the end of the instant.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from areal_sim.costs.protocol import FS_PER_NS, ServerCost
from areal_sim.engine import Engine, Request
from tests.sim.reference_engine import ReferenceEngine, ReferenceRequest

Kind = Literal["take all", "take", "hold", "boundary", "lose", "drain", "probe", "join"]


@dataclasses.dataclass(frozen=True)
class Rollout:
    """Arrives at `at_ns`, or (None) in answer to a finish, one for one."""

    prompt_tokens: int
    total_tokens: int
    at_ns: int | None = None
    server: int = 0


@dataclasses.dataclass(frozen=True)
class Act:
    """Something done to a server.

    Attributes:
        ids: rollouts to take.
        after_ns: when what was taken is submitted again (None: never), or how long it is held.
        to: server that gets what was taken.
    """

    kind: Kind
    at_ns: int
    server: int = 0
    ids: frozenset[int] = frozenset()
    after_ns: int | None = 0
    to: int = 0


@dataclasses.dataclass(frozen=True)
class Script:
    """A run. The answer to a finish on server i goes to server i + `answer_shift`."""

    cost: ServerCost
    max_running_rollouts: int
    kv_cache_tokens: int
    prefill_chunk_tokens: int
    kv_reserve_tokens: int
    rollouts: tuple[Rollout, ...]
    acts: tuple[Act, ...] = ()
    servers: int = 1
    answer_shift: int = 0

    def limits(self) -> dict[str, int]:
        return {
            "max_running_rollouts": self.max_running_rollouts,
            "kv_cache_tokens": self.kv_cache_tokens,
            "prefill_chunk_tokens": self.prefill_chunk_tokens,
            "kv_reserve_tokens": self.kv_reserve_tokens,
        }


AT_BOUNDARY, SOONER_OR_LATER = 0, 1
"""Within an instant: what waited for this boundary comes before what comes otherwise."""

COUNTERS = (
    "kv_tokens",
    "generated_tokens",
    "prefilled_tokens",
    "recomputed_tokens",
    "preemptions",
    "decode_fs",
    "prefill_fs",
    "recompute_fs",
)


class Play:
    """One run of a script.

    Args:
        script: what happens.
        engines: one for each server.
        new_request: makes their kind of request.
        nudges_ns: wakes, beyond those the engines ask for.
        settle: at a nudge, also bring the counters up to date.
        plan_often: plan after everything that happens, not once at the end of the instant.

    Attributes:
        log: what the outside sees.
    """

    def __init__(
        self,
        script: Script,
        engines: Sequence[Any],
        new_request: Callable[[int, int, int], Any],
        nudges_ns: Iterable[int] = (),
        settle: bool = False,
        plan_often: bool = False,
    ) -> None:
        self.script = script
        self.engines = engines
        self.log: list[tuple[Any, ...]] = []
        self.now_ns = 0
        self.wakes = 0
        self._settle = settle
        self._plan_often = plan_often
        self._agenda: list[tuple[int, int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._touched: dict[int, None] = {}
        self._held: set[int] = set()
        self._lives = [0] * len(engines)
        self._drained_hold_ns: dict[int, int] = {}
        self._answers: list[Any] = []
        for number, rollout in enumerate(script.rollouts):
            request = new_request(number, rollout.prompt_tokens, rollout.total_tokens)
            if rollout.at_ns is None:
                self._answers.insert(0, request)
            else:
                self._at(rollout.at_ns, self._submit, rollout.server, [request])
        for act in script.acts:
            self._at(act.at_ns, self._begin, act)
        for nudge_ns in nudges_ns:
            self._at(nudge_ns, self._nudge)

    def run(self) -> list[tuple[Any, ...]]:
        while (now_ns := self._next_ns()) is not None:
            self.wakes += 1
            assert self.wakes < 1_000_000, "it does not end"
            assert now_ns >= self.now_ns
            self.now_ns = now_ns
            self._instant()
        for server, engine in enumerate(self.engines):
            self._note("end", server, engine.empty, engine.busy, len(engine.waiting), at_ns=-1)
        return self.log

    # ---- one instant ---------------------------------------------------------------------------

    @property
    def _now_fs(self) -> int:
        return self.now_ns * FS_PER_NS

    def _next_ns(self) -> int | None:
        times = [self._agenda[0][0]] if self._agenda else []
        for engine in self.engines:
            visible_fs = engine.next_visible_fs()
            if visible_fs is not None:
                assert visible_fs % FS_PER_NS == 0
                times.append(visible_fs // FS_PER_NS)
        return min(times, default=None)

    def _instant(self) -> None:
        self._touched.clear()
        due = [engine.next_visible_fs() == self._now_fs for engine in self.engines]
        for server, is_due in enumerate(due):
            if is_due:
                self._touch(server)
        while self._agenda and self._agenda[0][0] == self.now_ns:
            _, rank, _, act = heapq.heappop(self._agenda)
            if self._plan_often and rank == SOONER_OR_LATER:
                self._plan()
            act()
        self._plan()

    def _plan(self) -> None:
        for server in self._touched:
            engine = self.engines[server]
            if engine.closed and engine.empty:
                self._end_drain(server)
            engine.plan()

    def _touch(self, server: int) -> Any:
        engine = self.engines[server]
        if server in self._touched:
            return engine
        self._touched[server] = None
        finished = engine.advance(self._now_fs)
        if finished:
            ids = [request.rollout_id for request in finished]
            self._note("finish", server, ids, [request.generated_tokens for request in finished])
            to = (server + self.script.answer_shift) % len(self.engines)
            for _ in finished:
                if self._answers:
                    self._submit(to, [self._answers.pop()])
        return engine

    def _at(
        self, at_ns: int, act: Callable[..., None], *args: Any, rank: int = SOONER_OR_LATER
    ) -> None:
        entry = (at_ns, rank, next(self._order), lambda: act(*args))
        heapq.heappush(self._agenda, entry)

    def _note(self, what: str, server: int, *facts: Any, at_ns: int | None = None) -> None:
        counters = tuple(getattr(self.engines[server], name) for name in COUNTERS)
        self.log.append((what, self.now_ns if at_ns is None else at_ns, server, *facts, counters))

    # ---- what happens --------------------------------------------------------------------------

    def _submit(self, server: int, requests: list[Any]) -> None:
        for request in requests:
            self._touch(server).submit(request, self._now_fs)

    def _nudge(self) -> None:
        for server in range(len(self.engines)):
            engine = self._touch(server)
            if self._settle:
                engine.settle(self._now_fs)

    def _begin(self, act: Act) -> None:
        engine = self._touch(act.server)
        if act.kind == "lose":
            self._lives[act.server] += 1
            self._take(act, None)
        elif act.kind == "probe":
            engine.settle(self._now_fs)
            self._note("probe", act.server, engine.empty, len(engine.waiting))
        elif act.kind == "drain":
            engine.closed = True
            self._drained_hold_ns[act.server] = act.after_ns or 0
        else:
            boundary_fs = engine.boundary_fs(self._now_fs)
            assert boundary_fs >= self._now_fs
            assert boundary_fs % FS_PER_NS == 0
            boundary_ns = boundary_fs // FS_PER_NS
            self._note_boundary(act, boundary_ns)
            if boundary_ns == self.now_ns:
                self._finish_act(act, self._lives[act.server])
            else:
                life = self._lives[act.server]
                self._at(boundary_ns, self._finish_act, act, life, rank=AT_BOUNDARY)

    def _note_boundary(self, act: Act, boundary_ns: int) -> None:
        self.log.append(("boundary", self.now_ns, act.server, boundary_ns))

    def _finish_act(self, act: Act, life: int) -> None:
        engine = self._touch(act.server)
        if life != self._lives[act.server]:
            return
        if act.kind == "take all":
            self._take(act, None)
        elif act.kind == "take":
            self._take(act, set(act.ids))
        elif act.kind == "hold":
            self._hold(act.server, act.after_ns or 0)
        else:
            self._note("at boundary", act.server, engine.empty)

    def _take(self, act: Act, ids: set[int] | None) -> None:
        taken = self._touch(act.server).take(self._now_fs, ids)
        progress = [(request.rollout_id, request.generated_tokens) for request in taken]
        self._note(act.kind, act.server, progress)
        if taken and act.after_ns is not None:
            self._at(self.now_ns + act.after_ns, self._submit, act.to, taken)

    def _hold(self, server: int, hold_ns: int) -> None:
        if server not in self._held:
            self._held.add(server)
            self.engines[server].hold(self._now_fs)
            self._note("hold", server)
            self._at(self.now_ns + hold_ns, self._release, server)

    def _release(self, server: int) -> None:
        self._touch(server).release(self._now_fs)
        self._held.discard(server)

    def _end_drain(self, server: int) -> None:
        self.engines[server].closed = False
        self._note("drained", server)
        hold_ns = self._drained_hold_ns[server]
        if hold_ns:
            self._hold(server, hold_ns)


def play_engine(script: Script, **options: Any) -> Play:
    engines = [Engine(script.cost, **script.limits()) for _ in range(script.servers)]
    play = Play(script, engines, Request, **options)
    play.run()
    return play


def play_reference(script: Script) -> Play:
    engines = [ReferenceEngine(script.cost, **script.limits()) for _ in range(script.servers)]
    play = Play(script, engines, ReferenceRequest)
    play.run()
    return play
