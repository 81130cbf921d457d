"""The shipped scheduler on the parts of a `Lab`, from update to update."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from areal_real.serving.segment import Segment
from areal_sched import Controller, Limits, load
from areal_sched import commands as c
from areal_sched import events as e
from areal_sched.commands import UpdateMode
from areal_sched.ids import GroupId, PromptId, RolloutId, ServerId, WeightVersion
from benchmarks.weight_transfer.lab import NS, PATIENCE_S, PROMPT, ROLLOUTS_PER_SERVER, Lab
from benchmarks.weight_transfer.updates import Update

SHORT_TOKENS, LONG_TOKENS = 16, 300
"""Answers are short and long by turns: with a batch of one, the next step need not wait for long,
and yet most of what runs outlives an update."""

SETTLE_S = 0.3
"""Generation goes on so long before the next update."""


class Drive:
    """Updates of some servers of a lab, one after another, while they generate.

    Args:
        lab: started.
        servers: the first ones of the lab.
        servers_at_once: the scheduler's option; None: all.
        mode: of the updates.
    """

    def __init__(
        self, lab: Lab, servers: int, servers_at_once: int | None, mode: UpdateMode
    ) -> None:
        self._lab = lab
        self._servers = lab.servers[:servers]
        self._at_once = servers_at_once
        self._first = lab.version
        limits = Limits(
            train_batch_rollouts=1, eta=None, max_rollouts_in_flight=ROLLOUTS_PER_SERVER * servers
        )
        options: dict[str, Any] = {"mode": mode, "barrier": False}
        if servers_at_once is not None:
            options["servers_at_once"] = servers_at_once
        self._controller = Controller(load("areal", limits, options), limits, None)
        self._inbox: deque[e.Event] = deque()
        self._handling = False
        self._numbers = itertools.count()
        self._answers: dict[int, list[int]] = {}
        self._lengths: dict[int, int] = {}
        self._commanded_ns = 0
        self._loaded_ns = 0
        self._step: asyncio.Task[None] | None = None
        self._published_s = 0.0
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def updates(self, repetitions: int) -> list[Update]:
        """Measure so many, after one that is not kept: the first of a method opens its group.

        Raises:
            BackendError: the trainer failed.
            RuntimeError: a server was lost.
            TimeoutError: nothing came of it.
        """
        lab = self._lab
        found = []
        try:
            async with asyncio.timeout(PATIENCE_S * (repetitions + 1)):
                await self._level()
                lab.driver = self
                for server in self._servers:
                    self.emit(
                        e.ServerJoined(
                            server_id=ServerId(server.server_id),
                            max_running_rollouts=server.max_running_rollouts,
                            kv_cache_tokens=server.kv_cache_tokens,
                            weight_version=WeightVersion(0),
                        )
                    )
                for _ in range(2 * ROLLOUTS_PER_SERVER * len(self._servers)):
                    self._offer()
                for version in range(repetitions + 1):
                    update = await self._update(version)
                    if version:
                        found.append(update)
        finally:
            await self._end()
        return found

    async def _level(self) -> None:
        """Bring servers that sat the last updates out to what the others have."""
        for server in self._servers:
            if server.weight_version != self._first:
                server.load(self._first, "in_place")
        while any(server.weight_version != self._first for server in self._servers):
            await asyncio.sleep(0.05)

    async def _update(self, version: int) -> Update:
        lab, count = self._lab, len(self._servers)
        await asyncio.sleep(SETTLE_S)
        self._over = asyncio.get_running_loop().create_future()
        self._commanded_ns = 0
        self.emit(e.TrainerReady(weight_version=WeightVersion(version)))
        await self._over
        await asyncio.sleep(SETTLE_S)
        start_ns, end_ns = self._commanded_ns, self._loaded_ns
        still_ns, all_still_ns = lab.since(start_ns, end_ns, count)
        return Update(
            size_bytes=lab.size_bytes,
            servers=count,
            method=lab.method,
            servers_at_once=self._at_once,
            publish_s=self._published_s,
            loads_s=lab.loads(start_ns, count),
            total_s=(end_ns - start_ns) * NS,
            still_s=still_ns * NS,
            all_still_s=all_still_ns * NS,
        )

    async def _end(self) -> None:
        """Nothing is on the servers any more."""
        self._lab.driver = None
        if self._step is not None:
            self._step.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._step
        for server in self._servers:
            server.abort(list(self._answers))
        async with asyncio.timeout(PATIENCE_S):
            while any(server.streamed() for server in self._servers):
                await asyncio.sleep(0.05)

    # ---- events and commands ------------------------------------------------------------------

    def emit(self, event: e.Event) -> None:
        """Let the scheduler answer an event, once it has answered those before."""
        self._inbox.append(event)
        if self._handling:
            return
        self._handling = True
        try:
            while self._inbox:
                now_ns = time.monotonic_ns()
                for command in self._controller.handle(self._inbox.popleft(), now_ns=now_ns):
                    self._execute(command)
        except Exception as error:
            self._fail(error)
        finally:
            self._handling = False

    def _fail(self, error: BaseException) -> None:
        if not self._over.done():
            self._over.set_exception(error)

    def _offer(self) -> None:
        number = next(self._numbers)
        self._lengths[number] = LONG_TOKENS if number % 2 else SHORT_TOKENS
        self.emit(
            e.PromptArrived(
                prompt_id=PromptId(number),
                group_id=GroupId(number),
                group_size=1,
                prompt_tokens=len(PROMPT),
            )
        )

    def _execute(self, command: c.Command) -> None:
        if isinstance(command, (c.StartRollouts, c.ResumeRollouts)):
            for rollout_id in command.rollout_ids:
                answer = self._answers.setdefault(rollout_id, [])
                self._lab.servers[command.server_id].submit(
                    rollout_id,
                    [*PROMPT, *answer],
                    self._length(rollout_id) - len(answer),
                    resumed=bool(answer),
                )
        elif isinstance(command, c.LoadWeights):
            self._commanded_ns = self._commanded_ns or time.monotonic_ns()
            version = self._first + command.weight_version
            self._lab.servers[command.server_id].load(version, command.mode)
        elif isinstance(command, c.StartTrainStep):
            self._step = asyncio.create_task(self._train(command.weight_version))
        else:
            raise AssertionError(f"not foreseen: {command}")

    def _length(self, rollout_id: int) -> int:
        rollout = self._controller.state.rollouts[RolloutId(rollout_id)]
        return self._lengths[rollout.group.group_id]

    async def _train(self, version: WeightVersion) -> None:
        try:
            self._published_s = await self._lab.publish(self._first + version)
        except Exception as error:
            self._fail(error)
        else:
            self.emit(e.TrainStepFinished(weight_version=version))

    # ---- what servers report ------------------------------------------------------------------

    def finished(self, server_id: int, rollout_id: int, segment: Segment) -> None:
        """Rewarded at once, and the next prompt is there."""
        answer = self._answers.pop(rollout_id)
        number = RolloutId(rollout_id)
        self.emit(
            e.RolloutFinished(
                rollout_id=number,
                weight_version=WeightVersion(int(segment.versions[-1]) - self._first),
                generated_tokens=len(answer) + len(segment),
                finish_reason="length",
            )
        )
        self.emit(e.RewardComputed(rollout_id=number, reward=0.0))
        self._offer()

    def interrupted(
        self, server_id: int, weight_version: int, stopped: Sequence[tuple[int, Segment]]
    ) -> None:
        """What they have is kept."""
        self.emit(
            e.RolloutsInterrupted(
                server_id=ServerId(server_id),
                weight_version=WeightVersion(weight_version - self._first),
                progress=tuple(self._grown(stopped)),
            )
        )

    def _grown(self, stopped: Sequence[tuple[int, Segment]]) -> Iterator[tuple[RolloutId, int]]:
        for rollout_id, segment in stopped:
            self._answers[rollout_id] += segment.ids
            yield RolloutId(rollout_id), len(self._answers[rollout_id])

    def rollout_failed(self, server_id: int, rollout_id: int, reason: str) -> None:
        """None should."""
        self._fail(RuntimeError(f"rollout {rollout_id} failed on server {server_id}: {reason}"))

    def loaded(self, server_id: int, weight_version: int) -> None:
        """When all have loaded, the update is over."""
        version = WeightVersion(weight_version - self._first)
        self.emit(e.WeightsLoaded(server_id=ServerId(server_id), weight_version=version))
        if all(server.weight_version == weight_version for server in self._servers):
            self._loaded_ns = time.monotonic_ns()
            if not self._over.done():
                self._over.set_result(None)

    def lost(self, server_id: int, reason: str) -> None:
        """None should be."""
        self._fail(RuntimeError(f"server {server_id} was lost: {reason}"))

    def measure(self, span: object) -> None:
        """The lab takes that down."""
