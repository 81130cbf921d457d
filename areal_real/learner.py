"""Drives the trainer: one training step from its batch to published weights and a checkpoint.

The order matters. Weights are published before servers hear of them; the checkpoint is saved after
that, while servers go on, and remembers how far the journal was: both together are a state of the
run that it can be taken up from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_args

from areal_real.checkpoints import Checkpoints
from areal_real.errors import BackendError, TrainerLost
from areal_real.executor import RealExecutor
from areal_real.training.batch import Batch, Sample
from areal_sched.events import TrainerReady, TrainStepFailed
from areal_sched.ids import WeightVersion
from areal_sched.measurements import TrainerActivity, TrainerSpan
from areal_sched.records import Rollout

MOST_RESTARTS = 3
"""A trainer that is lost so often without finishing a step is not started again."""

ACTIVITIES = get_args(TrainerActivity)


class World(Protocol):
    """What is needed of a trainer; `areal_real.training.world.TrainerWorld` is one."""

    async def train(self, version: int, batch: Path) -> dict[str, float]:
        """Train one step; returns its statistics."""

    async def export(self, folder: Path) -> None:
        """Write the weights as Hugging Face safetensors."""

    async def save(self, folder: Path) -> None:
        """Write all that training goes on from."""

    async def stop(self) -> None:
        """End the world."""


class NoCheckpoint(BackendError):
    """The trainer is lost and the newest checkpoint is older than the weights: roll back."""


@dataclass(frozen=True, slots=True)
class StepDone:
    """A finished step.

    Attributes:
        version: the weights it made.
        rollouts: what it trained on.
        first_versions: of each, the weights of its first token as the server reported them; the
            state counts from the weights a server had when the rollout was sent there.
        stats: the trainer's.
    """

    version: int
    rollouts: tuple[Rollout, ...]
    first_versions: tuple[int, ...]
    stats: dict[str, float]


class SpanTiler:
    """Lays the trainer's activities end to end, idle in between, on the run's clock.

    Args:
        measure: takes the spans.
        origin_ns: the monotonic clock at the run's time 0.
        since_ns: run time up to which spans are told already.
    """

    def __init__(
        self, measure: Callable[[TrainerSpan], None], *, origin_ns: int, since_ns: int
    ) -> None:
        self._measure = measure
        self._origin_ns = origin_ns
        self._since_ns = since_ns
        self._version = 0
        self._closed = False
        self.between: TrainerActivity = "idle"

    def span(
        self,
        activity: str,
        version: int,
        start_ns: int,
        end_ns: int,
        waiting_ns: int = 0,
        micro_batches: int = 0,
    ) -> None:
        """Take one activity, its times on the monotonic clock."""
        if activity not in ACTIVITIES:
            raise BackendError(f"the trainer tells of {activity!r}; known: {', '.join(ACTIVITIES)}")
        start_ns = max(start_ns - self._origin_ns, self._since_ns)
        end_ns = end_ns - self._origin_ns
        self._put(self.between, start_ns, 0, 0)
        self._version = version
        self._put(activity, end_ns, waiting_ns, micro_batches)

    def close(self, end_ns: int) -> None:
        """The run ends at this time, on its clock; what is told later is not taken down."""
        self._put(self.between, end_ns, 0, 0)
        self._closed = True

    def _put(self, activity: str, end_ns: int, waiting_ns: int, micro_batches: int) -> None:
        start_ns = self._since_ns
        if self._closed or end_ns <= start_ns:
            return
        self._since_ns = end_ns
        self._measure(
            TrainerSpan(
                activity=activity,  # type: ignore[arg-type]  # checked above
                weight_version=WeightVersion(self._version),
                start_ns=start_ns,
                end_ns=end_ns,
                waiting_ns=min(waiting_ns, end_ns - start_ns),
                micro_batches=micro_batches,
            )
        )


class TrainerDriver:
    """Carries out `StartTrainStep`.

    Args:
        executor: where events go.
        world: the trainer, ready.
        start_world: starts another from a checkpoint's folder.
        checkpoints: the run's checkpoints.
        settle: makes the journal outlive a loss of power, and tells how many entries it has.
        batches: folder for the batch files.
        weights: folder of published weights, by version.
        tiler: takes the trainer's spans.
        checkpoint_every_steps: steps from checkpoint to checkpoint.
        steps: the run's last step.
        on_step: called when a step's weights are published, before servers hear of them.
        warn: told of what went wrong without ending the run.
    """

    def __init__(
        self,
        executor: RealExecutor,
        world: World,
        start_world: Callable[[Path], Awaitable[World]],
        checkpoints: Checkpoints,
        settle: Callable[[], int],
        *,
        batches: Path,
        weights: Callable[[int], Path],
        tiler: SpanTiler,
        checkpoint_every_steps: int,
        steps: int,
        on_step: Callable[[StepDone], None],
        warn: Callable[[str], None],
    ) -> None:
        self._executor = executor
        self.world = world
        self._start_world = start_world
        self._checkpoints = checkpoints
        self._settle = settle
        self._batches = batches
        self._weights = weights
        self._tiler = tiler
        self._every = checkpoint_every_steps
        self._steps = steps
        self._on_step = on_step
        self._warn = warn
        self._restarts = 0
        self._stop = asyncio.Event()
        self.on_idle: Callable[[], None] = lambda: None
        self.idle = asyncio.Event()
        self.idle.set()

    @property
    def stopping(self) -> bool:
        """Whether the run ends with the step in progress."""
        return self._stop.is_set()

    def stop(self) -> None:
        """End with the step in progress; a trainer that is just coming up is not waited for."""
        self._stop.set()

    def start(self, version: int, rollouts: Sequence[Rollout]) -> None:
        """Begin a step."""
        self.idle.clear()
        self._executor.go(self._step(version, tuple(rollouts)))

    async def _step(self, version: int, rollouts: tuple[Rollout, ...]) -> None:
        ready: int | None = None
        try:
            ready = await self._train(version, rollouts)
        finally:
            self.idle.set()
            self.on_idle()
        # Last, since the next step may begin inside of it.
        if ready is not None and not self.stopping and ready < self._steps:
            self._executor.emit(TrainerReady(weight_version=WeightVersion(ready)))

    async def _train(self, version: int, rollouts: tuple[Rollout, ...]) -> int | None:
        """One step; returns the version that the trainer then holds, None if it is lost."""
        path = self._batches / f"{version:06d}.safetensors"
        samples = [self._sample(rollout) for rollout in rollouts]
        check_ends(samples, self._executor.end_ids)
        first_versions = tuple(int(sample.versions[0]) for sample in samples)
        batch = Batch.of(samples)
        try:
            await asyncio.to_thread(batch.save, path)
            stats = await self.world.train(version, path)
            await self.world.export(self._weights(version))
        except TrainerLost as exc:
            return await self._recover(version, exc)
        path.unlink(missing_ok=True)
        self._restarts = 0
        self._on_step(StepDone(version, rollouts, first_versions, stats))
        self._executor.trained(version)
        if version % self._every == 0 or version == self._steps or self.stopping:
            await self.save(version)
        return version

    async def save(self, version: int) -> None:
        """Make a checkpoint of the run as it stands, between two steps.

        A disk that is full costs this checkpoint and not the run.
        """
        try:
            entries = self._settle()
            await self._checkpoints.save(self.world, version, entries)
        except TrainerLost as exc:
            if self.stopping:
                self._warn(
                    f"no checkpoint of step {version}, the trainer was lost; resuming goes"
                    " on from the one before"
                )
                return
            raise NoCheckpoint(f"saving step {version}: {exc}") from exc
        except (BackendError, OSError) as exc:
            self._warn(f"no checkpoint of step {version}: {exc}; the one before is kept")

    async def _recover(self, version: int, lost: TrainerLost) -> int | None:
        self._warn(f"the trainer was lost in step {version}: {lost}")
        self._tiler.between = "down"
        reason = str(lost).splitlines()[0]
        self._executor.emit(TrainStepFailed(weight_version=WeightVersion(version), reason=reason))
        while True:
            self._restarts += 1
            if self._restarts > MOST_RESTARTS:
                raise BackendError(f"the trainer was lost {self._restarts} times in step {version}")
            await self.world.stop()
            if self.stopping:
                return None
            newest = await asyncio.to_thread(self._checkpoints.newest_sound, self._warn)
            if newest is None or newest.version != version - 1:
                raise NoCheckpoint(f"there is no checkpoint of step {version - 1}")
            try:
                world = await self._started_unless_stopped(newest.trainer)
            except TrainerLost as exc:
                self._warn(f"the trainer was lost while it started: {exc}")
                continue
            if world is None:
                return None
            self.world = world
            self._tiler.between = "idle"
            return version - 1

    async def _started_unless_stopped(self, checkpoint: Path) -> World | None:
        starting = asyncio.ensure_future(self._start_world(checkpoint))
        stopped = asyncio.ensure_future(self._stop.wait())
        waits: set[asyncio.Future[Any]] = {starting, stopped}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return starting.result() if starting.done() else None
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def _sample(self, rollout: Rollout) -> Sample:
        answer = self._executor.store.answer(rollout.rollout_id)
        group_id = rollout.group.group_id
        return Sample(
            rollout_id=rollout.rollout_id,
            group_id=group_id,
            prompt_ids=self._executor.feed.prompt(group_id).ids,
            response_ids=answer.ids.tolist(),
            behaviour_logprobs=answer.logprobs,
            versions=answer.versions,
            reward=rollout.reward,
        )


def check_ends(samples: Sequence[Sample], end_ids: frozenset[int]) -> None:
    """Hold samples against a law of the store: an answer has nothing after its end.

    Raises:
        BackendError: one has.
    """
    for sample in samples:
        if end_ids.intersection(sample.response_ids[:-1]):
            raise BackendError(f"rollout {sample.rollout_id} goes on past its end token")
