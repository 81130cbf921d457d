"""The real executor: carries out the controller's commands on real servers and a real trainer.

Nothing here decides. Events wait in one inbox and are handled one at a time, on the event loop's
only thread; a command begins its work and returns, and what comes of it is another event. A back
end that fails is an event too, never a lost rollout.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from typing import Any

import numpy as np

from areal_real.errors import BackendError
from areal_real.feed import ProblemFeed
from areal_real.parts import InferenceServer, Learner, Scorer, Segment
from areal_real.rewards.errors import RewardFailed
from areal_real.store import TrajectoryStore
from areal_real.tasks.problem import Problem, Tokenizer
from areal_sched import commands as c
from areal_sched.controller import Controller
from areal_sched.events import (
    Event,
    FinishReason,
    PromptArrived,
    RewardComputed,
    RolloutFailed,
    RolloutFinished,
    RolloutsInterrupted,
    ServerJoined,
    ServerLost,
    TimerFired,
    TrainStepFinished,
    WeightsLoaded,
)
from areal_sched.ids import RolloutId, ServerId, WeightVersion
from areal_sched.measurements import Measurement
from areal_sched.records import Phase, Rollout

NS_PER_S = 1_000_000_000

FAILURES_IN_A_ROW = 64
"""So many rollouts, and at least a batch of them, that fail with none between that succeeds: the
run would only go on failing."""

ABORTED = "aborted"
"""Reason of rollouts that the scheduler gave up."""

BACKLOG_GROUPS = 64
"""Prompts on offer beyond those started: the data loader's read-ahead, as in the simulator."""


class RealExecutor:
    """Joins a controller to real servers, a trainer and reward workers.

    Build it, give it its ``servers`` and ``learner``, and `begin`.

    Args:
        controller: decides and records.
        feed: prompts.
        store: takes every token before its event is handled.
        scorer: reward workers.
        tokenizer: turns answers into text for the reward.
        measure: takes (now_ns, measurement).
        max_response_tokens: answers of this length end for reason ``length``.
        end_ids: tokens that end an answer.
        clock_ns: the run's clock.
    """

    def __init__(
        self,
        controller: Controller,
        feed: ProblemFeed,
        store: TrajectoryStore,
        scorer: Scorer,
        tokenizer: Tokenizer,
        measure: Callable[[int, Measurement], None],
        *,
        max_response_tokens: int,
        end_ids: Collection[int],
        clock_ns: Callable[[], int],
    ) -> None:
        self._controller = controller
        self.state = controller.state
        self.feed = feed
        self.store = store
        self._scorer = scorer
        self._tokenizer = tokenizer
        self._measure = measure
        self._max_response_tokens = max_response_tokens
        self.end_ids = frozenset(end_ids)
        self._clock_ns = clock_ns
        self._failures_in_a_row = 0
        self.servers: dict[ServerId, InferenceServer] = {}
        self.learner: Learner
        self.on_server_lost: Callable[[ServerId, str], None] = lambda server_id, reason: None
        self._inbox: deque[Event] = deque()
        self._coming = 0  # prompts in the inbox
        self._draining = False
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: list[asyncio.TimerHandle] = []
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._execute: dict[type, Callable[[Any], None]] = {
            c.StartRollouts: self._start_rollouts,
            c.ResumeRollouts: self._resume_rollouts,
            c.InterruptRollouts: self._interrupt_rollouts,
            c.AbortRollouts: self._abort_rollouts,
            c.DropRollouts: lambda command: None,  # the store forgets them with the checkpoints
            c.LoadWeights: self._load_weights,
            c.StartTrainStep: self._start_train_step,
            c.SetTimer: self._set_timer,
        }

    # ---- the inbox -----------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        """Report an event. It is handled at once, or when the one in hand is done."""
        if self._closed:
            return
        self._inbox.append(event)
        if not self._draining:
            self._drain()

    def _drain(self) -> None:
        self._draining = True
        try:
            while self._inbox and not self._closed:
                event = self._inbox.popleft()
                if type(event) is PromptArrived:
                    self._coming -= 1
                now_ns = max(self._clock_ns(), self.state.now_ns)
                for command in self._controller.handle(event, now_ns=now_ns):
                    self._execute[type(command)](command)
        except Exception as exc:
            # A bug, or a store that cannot write any more: the run is over, whoever waits is told.
            self.fail(exc)
        finally:
            self._draining = False

    def fail(self, error: BaseException) -> None:
        """End the run: whoever awaits `failed` gets the error."""
        self._closed = True
        if not self.failed.done():
            self.failed.set_exception(error)

    def close(self) -> None:
        """Hear nothing more."""
        self._closed = True
        for timer in self._timers:
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        if not self.failed.done():
            self.failed.cancel()

    def begin(self) -> None:
        """Fill the backlog of prompts."""
        self._top_up()
        if not self._draining:
            self._drain()

    def _top_up(self) -> None:
        while len(self.state.pending) + self._coming < BACKLOG_GROUPS:
            self._inbox.append(self.feed.offer())
            self._coming += 1

    def rearm(self, timer_id: int, fire_at_ns: int) -> None:
        """Set a timer again that a resumed journal holds."""
        self._set_timer(c.SetTimer(timer_id=timer_id, fire_at_ns=fire_at_ns))  # type: ignore[arg-type]

    def rescore(self) -> None:
        """Compute again the rewards that a resumed journal still awaits."""
        for rollout in list(self.state.rollouts.values()):
            if rollout.phase is Phase.FINISHED:
                self._reward(rollout.rollout_id, rollout.group.group_id)

    def go(self, work: Coroutine[Any, Any, None]) -> None:
        """Let work go on in the background; an error of it that nobody foresaw ends the run."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    # ---- commands ------------------------------------------------------------------------------

    def _start_rollouts(self, command: c.StartRollouts) -> None:
        prompt = self.feed.prompt(command.group_id)
        server = self.servers[command.server_id]
        for rollout_id in command.rollout_ids:
            server.submit(rollout_id, prompt.ids, self._max_response_tokens)
        self._top_up()

    def _resume_rollouts(self, command: c.ResumeRollouts) -> None:
        server = self.servers[command.server_id]
        for rollout_id in command.rollout_ids:
            rollout = self.state.rollouts[rollout_id]
            prompt = self.feed.prompt(rollout.group.group_id)
            answer = self.store.answer(rollout_id)
            left = self._max_response_tokens - len(answer)
            if left > 0:
                input_ids = [*prompt.ids, *answer.ids.tolist()]
                server.submit(rollout_id, input_ids, left, resumed=len(answer) > 0)
            else:
                # It was interrupted after its last token and before its end was reported.
                self._finish(rollout, len(answer), rollout.last_version, "length")

    def _interrupt_rollouts(self, command: c.InterruptRollouts) -> None:
        self.servers[command.server_id].interrupt(command.rollout_ids)

    def _abort_rollouts(self, command: c.AbortRollouts) -> None:
        by_server: dict[ServerId, list[int]] = defaultdict(list)
        for rollout_id in command.rollout_ids:
            by_server[self.state.rollouts[rollout_id].server_id].append(rollout_id)
        for server_id, rollout_ids in by_server.items():
            self.servers[server_id].abort(rollout_ids)

    def _load_weights(self, command: c.LoadWeights) -> None:
        self.servers[command.server_id].load(command.weight_version, command.mode)

    def _start_train_step(self, command: c.StartTrainStep) -> None:
        rollouts = [self.state.rollouts[x] for x in command.rollout_ids]
        self.learner.start(command.weight_version, rollouts)

    def _set_timer(self, command: c.SetTimer) -> None:
        delay_s = max(0, command.fire_at_ns - self._clock_ns()) / NS_PER_S

        def fire() -> None:
            left_ns = command.fire_at_ns - self._clock_ns()
            if left_ns > 0:  # the loop's clock and the run's may differ by a tick
                self._timers.append(loop.call_later(left_ns / NS_PER_S, fire))
            else:
                self.emit(TimerFired(timer_id=command.timer_id))

        loop = asyncio.get_running_loop()
        self._timers = [x for x in self._timers if not x.cancelled() and x.when() > loop.time()]
        self._timers.append(loop.call_later(delay_s, fire))

    # ---- what servers report -------------------------------------------------------------------

    def joined(
        self, server_id: int, max_running_rollouts: int, kv_cache_tokens: int, weight_version: int
    ) -> None:
        """A server is ready."""
        self.emit(
            ServerJoined(
                server_id=ServerId(server_id),
                max_running_rollouts=max_running_rollouts,
                kv_cache_tokens=kv_cache_tokens,
                weight_version=WeightVersion(weight_version),
            )
        )

    def finished(self, server_id: int, rollout_id: int, segment: Segment) -> None:
        """A rollout has its last token."""
        with self._reporting():
            self._finished(rollout_id, segment)

    def _finished(self, rollout_id: int, segment: Segment) -> None:
        if self._closed:
            return
        tokens = self._keep(rollout_id, segment)
        versions = segment.versions
        rollout = self.state.rollouts[RolloutId(rollout_id)]
        version = int(versions[-1]) if len(versions) else rollout.last_version
        self._finish(rollout, tokens, version, "length" if segment.finish == "length" else "stop")

    def interrupted(
        self, server_id: int, weight_version: int, segments: Sequence[tuple[int, Segment]]
    ) -> None:
        """A server stopped rollouts and kept nothing of them."""
        with self._reporting():
            self._interrupted(server_id, weight_version, segments)

    def _interrupted(
        self, server_id: int, weight_version: int, segments: Sequence[tuple[int, Segment]]
    ) -> None:
        if self._closed:
            return
        stopped = []
        for rollout_id, segment in segments:
            # SGLang runs one more step after an abort. What ended in it has ended: resumed, it
            # would go on past its end.
            if len(segment.ids) and segment.ids[-1] in self.end_ids:
                self._finished(rollout_id, segment)
            else:
                stopped.append((rollout_id, segment))
        progress = tuple((RolloutId(x), self._keep(x, segment)) for x, segment in stopped)
        if progress:
            self.emit(
                RolloutsInterrupted(
                    server_id=ServerId(server_id),
                    weight_version=WeightVersion(weight_version),
                    progress=progress,
                )
            )

    def rollout_failed(self, server_id: int, rollout_id: int, reason: str) -> None:
        """A rollout cannot go on."""
        with self._reporting():
            self.emit(RolloutFailed(rollout_id=RolloutId(rollout_id), reason=reason))
            if reason != ABORTED:
                self._count_failure(reason)

    def loaded(self, server_id: int, weight_version: int) -> None:
        """A server generates with these weights now."""
        self.emit(
            WeightsLoaded(
                server_id=ServerId(server_id), weight_version=WeightVersion(weight_version)
            )
        )

    def lost(self, server_id: int, reason: str) -> None:
        """A server is gone; it may come back when this has been heard."""
        self.emit(ServerLost(server_id=ServerId(server_id)))
        self.on_server_lost(ServerId(server_id), reason)

    def measure(self, measurement: Measurement) -> None:
        """A device tells what it did."""
        with self._reporting():
            self._measure(max(self._clock_ns(), self.state.now_ns), measurement)

    def trained(self, version: int) -> None:
        """A training step is done, its weights are published."""
        self.emit(TrainStepFinished(weight_version=WeightVersion(version)))

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Whoever reports is no one to tell: what goes wrong here ends the run."""
        try:
            yield
        except Exception as exc:
            self.fail(exc)

    def _count_failure(self, reason: str) -> None:
        self._failures_in_a_row += 1
        limits = self.state.limits
        if self._failures_in_a_row >= max(FAILURES_IN_A_ROW, limits.train_batch_rollouts):
            raise BackendError(
                f"{self._failures_in_a_row} rollouts failed and none succeeded; the last: {reason}"
            )

    # ---- rewards -------------------------------------------------------------------------------

    def _keep(self, rollout_id: int, segment: Segment) -> int:
        return self.store.add(
            rollout_id,
            list(segment.ids),
            np.asarray(segment.logprobs),
            np.asarray(segment.versions),
        )

    def _finish(self, rollout: Rollout, tokens: int, version: int, reason: FinishReason) -> None:
        group_id = rollout.group.group_id
        self.emit(
            RolloutFinished(
                rollout_id=rollout.rollout_id,
                weight_version=WeightVersion(version),
                generated_tokens=tokens,
                finish_reason=reason,
            )
        )
        self._reward(rollout.rollout_id, group_id)

    def _reward(self, rollout_id: RolloutId, group_id: int) -> None:
        prompt = self.feed.prompt(group_id)
        answer = self._tokenizer.decode(self.store.answer(rollout_id).ids.tolist())
        self.go(self._score(rollout_id, prompt.problem, answer))

    async def _score(self, rollout_id: RolloutId, problem: Problem, answer: str) -> None:
        try:
            reward = await self._scorer.score(problem, answer)
        except BackendError as exc:
            if not (isinstance(exc, RewardFailed) and exc.of_answer):
                reason = f"reward: {exc}"
                self.emit(RolloutFailed(rollout_id=rollout_id, reason=reason))
                self._count_failure(reason)
                return
            # The answer is such that judging it takes for ever: no way to earn a reward.
            reward = 0.0
        self._failures_in_a_row = 0
        self.emit(RewardComputed(rollout_id=rollout_id, reward=reward))
