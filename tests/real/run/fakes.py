"""Parts that misbehave on request, beside the real ones: what those cannot be asked for.

A made-up server answers with the numbers 0, 1, 2, ... of an answer's tokens, so that any token
lost, repeated or out of place shows; its times are turns of the event loop drawn from a seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from areal_real.errors import BackendError, TrainerLost
from areal_real.executor import RealExecutor
from areal_real.folder import RunFolder
from areal_real.learner import SpanTiler
from areal_real.tasks.problem import Problem
from areal_real.training.batch import Batch
from areal_sched.ids import ServerId
from areal_sched.measurements import ServerSpan

PROMPT = [7, 7]
MOST_TOKENS = 12
IDLE_TURN_S = 0.001


class Digits:
    """Tokens are numbers, text is them with spaces."""

    vocab_size = 1000
    eos_id = 999

    def encode(self, text: str) -> list[int]:
        return [int(x) for x in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


class Counting:
    """Every problem is the same."""

    tokenizer = Digits()

    def problem(self, position: int) -> Problem:
        return Problem(problem_id=str(position), prompt="7 7", kind="exact", reference="")

    def held_out(self) -> Sequence[Problem]:
        return ()


@dataclass(frozen=True)
class Piece:
    ids: list[int]
    logprobs: Any
    versions: Any
    finish: str


def piece(first: int, count: int, version: int, finish: str) -> Piece:
    versions = np.full(count, version)
    return Piece(list(range(first, first + count)), versions * -0.25, versions, finish)


@dataclass(frozen=True, kw_only=True)
class Troubles:
    """Chances of what goes wrong, each time it could."""

    reward_fails: float = 0.0
    rollout_fails: float = 0.0
    server_dies: float = 0.0
    trainer_dies: float = 0.0
    trainer_start_dies: float = 0.0
    save_fails: float = 0.0
    no_room: float = 0.0


class MadeUpServer:
    """Generates a token of each rollout in a turn."""

    max_running_rollouts = 4
    kv_cache_tokens = 1000

    def __init__(self, world: MadeUpBackend, server_id: int, *, started: bool = True) -> None:
        self._world = world
        self._started = started
        self._rng = random.Random(world.rng.random())
        self.server_id = server_id
        self._version = 0
        self._alive = False
        self._life = 0  # counts losses: what was begun in an earlier life is void
        self._loading = False
        self._waiting: list[tuple[int, list[int], int]] = []
        # Of each rollout: its first token's number here, how many it has, how many it will have.
        self._running: dict[int, list[int]] = {}
        self._task: asyncio.Task[None] | None = None
        self._since_ns = 0

    # ---- what a run asks -----------------------------------------------------------------------

    def begin(self, executor: RealExecutor, origin_ns: int, since_ns: int, version: int) -> None:
        assert version == self._version or not self._started
        self._host = executor
        self._since_ns = since_ns
        self._alive = self._started
        self._task = asyncio.create_task(self._turns())

    async def use(self, version: int) -> None:
        self._version = version

    async def restart(self, version: int) -> None:
        await self._world.turns(3)
        self._version = version
        self._alive = True
        self._world.restarted.add(self.server_id)

    def end(self, end_ns: int) -> None:
        if end_ns > self._since_ns:
            self._host.measure(
                ServerSpan(
                    server_id=ServerId(self.server_id),
                    activity="generate",
                    start_ns=self._since_ns,
                    end_ns=end_ns,
                    prefill_ns=0,
                    recompute_ns=0,
                    generated_tokens=0,
                    recomputed_tokens=0,
                )
            )

    async def loads_done(self) -> None:
        pass

    def lose(self, reason: str) -> None:
        self._die()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def answer(self, input_ids: Sequence[int], max_new_tokens: int) -> list[int]:
        return [self._version]

    # ---- commands ------------------------------------------------------------------------------

    def submit(
        self,
        rollout_id: int,
        input_ids: Sequence[int],
        max_new_tokens: int,
        *,
        resumed: bool = False,
    ) -> None:
        assert resumed == (len(input_ids) > len(PROMPT))
        if not self._alive:
            return
        assert list(input_ids[:2]) == PROMPT
        assert list(input_ids[2:]) == list(range(len(input_ids) - 2))
        assert max_new_tokens == MOST_TOKENS - (len(input_ids) - 2)
        if self._loading:
            self._waiting.append((rollout_id, list(input_ids), max_new_tokens))
            return
        done = len(input_ids) - 2
        wanted = min(max_new_tokens, self._rng.randint(1, MOST_TOKENS))
        self._running[rollout_id] = [done, 0, wanted]

    def interrupt(self, rollout_ids: Sequence[int]) -> None:
        self._give_back([x for x in rollout_ids if x in self._running])

    def abort(self, rollout_ids: Sequence[int]) -> None:
        for rollout_id in rollout_ids:
            if self._rng.random() < 0.3 and rollout_id in self._running:
                self._finish(rollout_id)  # it was done before the abort came
            elif self._running.pop(rollout_id, None) or self._unqueue(rollout_id):
                self._host.rollout_failed(self.server_id, rollout_id, "aborted")

    def load(self, version: int, mode: str) -> None:
        if not self._alive:
            return
        assert not self._loading
        self._loading = True
        if mode == "interrupt":
            self._give_back(list(self._running))
        task = asyncio.create_task(self._load(version, mode, self._life))
        self._world.keep(task)

    async def _load(self, version: int, mode: str, life: int) -> None:
        while mode == "drain" and self._running and life == self._life:
            await asyncio.sleep(0)
        await self._world.turns(4)
        if life != self._life:
            return
        assert self._world.folder.weights(version).exists()
        self._version = version
        self._loading = False
        self._host.loaded(self.server_id, version)
        waiting, self._waiting = self._waiting, []
        for rollout_id, input_ids, most in waiting:
            self.submit(rollout_id, input_ids, most, resumed=len(input_ids) > len(PROMPT))

    # ---- generating ----------------------------------------------------------------------------

    async def _turns(self) -> None:
        while True:
            # An idle one must not spin: threads that write files would wait for the interpreter.
            await asyncio.sleep(0 if self._running else IDLE_TURN_S)
            if not self._alive:
                continue
            for rollout_id in list(self._running)[: self.max_running_rollouts]:
                counts = self._running.get(rollout_id)
                if counts is None:
                    continue
                counts[1] += 1
                if self._rng.random() < self._world.troubles.rollout_fails:
                    del self._running[rollout_id]
                    self._host.rollout_failed(self.server_id, rollout_id, "made up")
                elif counts[1] >= counts[2]:
                    self._finish(rollout_id)
            if self._rng.random() < self._world.troubles.server_dies:
                self._die()

    def _finish(self, rollout_id: int) -> None:
        first, count, _ = self._running.pop(rollout_id)
        whole = first + count >= MOST_TOKENS
        made = piece(first, count, self._version, "length" if whole else "stop")
        self._host.finished(self.server_id, rollout_id, made)

    def _give_back(self, rollout_ids: list[int]) -> None:
        pieces = []
        for rollout_id in rollout_ids:
            first, count, _ = self._running.pop(rollout_id)
            made = piece(first, count, self._version, "abort")
            if count and self._rng.random() < 0.2:
                made.ids[-1] = Digits.eos_id  # it ended in the step in which it was stopped
            pieces.append((rollout_id, made))
        self._host.interrupted(self.server_id, self._version, pieces)

    def _unqueue(self, rollout_id: int) -> bool:
        before = len(self._waiting)
        self._waiting = [x for x in self._waiting if x[0] != rollout_id]
        return len(self._waiting) < before

    def _die(self) -> None:
        self._alive = False
        self._life += 1
        self._loading = False
        streamed = [x for x in self._running if self._rng.random() < 0.5]
        if streamed:
            self._give_back(streamed)
        self._running.clear()
        self._waiting.clear()
        self._host.lost(self.server_id, "made up")


class MadeUpWorld:
    """Checks what it is given to train on, and remembers it."""

    def __init__(self, backend: MadeUpBackend, version: int) -> None:
        self._backend = backend
        self.version = version
        self._lost = False

    async def train(self, version: int, batch: Path) -> dict[str, float]:
        assert version == self.version + 1
        loaded = Batch.load(batch)
        await self._backend.turns(6)
        if self._backend.rng.random() < self._backend.troubles.trainer_dies:
            self._lost = True
            raise TrainerLost("made up")
        for start, length, prompt in zip(
            loaded.starts, loaded.lengths, loaded.prompt_tokens, strict=True
        ):
            answer = loaded.tokens[start + prompt : start + length]
            assert answer[:-1].tolist() == list(range(len(answer) - 1))
            assert answer[-1] in (len(answer) - 1, Digits.eos_id)
            versions = loaded.versions[start + prompt : start + length]
            assert (versions >= 0).all()
            assert (np.diff(versions) >= 0).all()
            assert versions.max() < version
            logprobs = loaded.behaviour_logprobs[start + prompt : start + length]
            assert logprobs.tolist() == (versions * -0.25).tolist()
        self.version = version
        self._backend.trained[version] = loaded.rollout_ids.tolist()
        return {"loss": 0.5}

    async def export(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    async def save(self, folder: Path) -> None:
        await self._backend.turns(4)
        if self._backend.rng.random() < self._backend.troubles.save_fails:
            raise BackendError("no space left on device (made up)")
        folder.mkdir()
        (folder / "version.json").write_text(json.dumps(self.version))

    async def stop(self) -> None:
        pass


class MadeUpRewards:
    """One in so many answers cannot be judged."""

    def __init__(self, backend: MadeUpBackend) -> None:
        self._backend = backend

    async def score(self, problem: Problem, answer: str) -> float:
        await self._backend.turns(5)
        if self._backend.rng.random() < self._backend.troubles.reward_fails:
            raise BackendError("made up")
        return float(len(answer.split()) % 2)


class MadeUpBackend:
    """Makes the parts above.

    Attributes:
        trained: rollouts of each step, as the world saw them last.
        rooms: servers for which room was asked, and not given up.
        restarted: servers that came up after the run's beginning.
    """

    def __init__(self, folder: RunFolder, seed: int, troubles: Troubles) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        self.troubles = troubles
        self.trained: dict[int, list[int]] = {}
        self.rooms: set[int] = set()
        self.restarted: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def turns(self, most: int) -> None:
        for _ in range(self.rng.randint(0, most)):
            await asyncio.sleep(0)

    def keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def start_world(self, checkpoint: Path | None) -> MadeUpWorld:
        if self.rng.random() < self.troubles.trainer_start_dies:
            raise TrainerLost("made up, while it started")
        if checkpoint is None:
            return MadeUpWorld(self, 0)
        if self.rng.random() < self.troubles.no_room:
            self._make_room()
        return MadeUpWorld(self, json.loads((checkpoint / "version.json").read_text()))

    async def start_server(self, server_id: int) -> MadeUpServer:
        return MadeUpServer(self, server_id)

    def new_server(self, server_id: int) -> MadeUpServer:
        return MadeUpServer(self, server_id, started=False)

    async def room_for(self, server_id: int) -> None:
        self.rooms.add(server_id)
        await self.turns(200)

    def give_up(self, server_id: int) -> None:
        self.rooms.discard(server_id)

    def on_crowded(self, make_room: Callable[[], None]) -> None:
        self._make_room = make_room

    def connect(self, executor: RealExecutor, tiler: SpanTiler) -> None:
        pass

    @contextlib.asynccontextmanager
    async def start_rewards(self) -> AsyncIterator[MadeUpRewards]:
        yield MadeUpRewards(self)


class Silent:
    """Looks on and says nothing; remembers the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def phase(self, text: str) -> None:
        pass

    def step(self, row: dict[str, float], steps: int) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)
