"""Reward workers under one asyncio interface.

A worker has one answer at a time, so it is always clear which answer a dead or silent worker had.
An answer is tried a second time, by a fresh worker, only if the first died without it being to
blame: before it began to judge, or killed by SIGKILL from outside. A worker that is too slow is
killed and its answer not tried again: it would only be slow twice.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from areal_real.rewards.errors import RewardFailed
from areal_real.rewards.worker_process import WorkerLost, WorkerProcess
from areal_real.tasks.problem import Problem

START_TIMEOUT_S = 120.0
MEMORY_BYTES = 1 << 30  # a worker that judges mathematics takes 70 MB
_TRIES = 2


class RewardPool:
    """Judges answers in worker processes, as many at once as there are workers.

    Use it as ``async with RewardPool(2, 10.0) as pool``, or `close` it. Workers start when they are
    first needed. They end with the pool, when they are killed, and when the thread that runs the
    event loop ends; they do not see Ctrl-C. Belongs to one event loop.

    Args:
        workers: processes.
        timeout_s: for one answer, from the moment a worker has loaded its libraries.
        memory_bytes: address space of a worker; programs in the sandbox have a limit of their own.
        start_timeout_s: for a worker to load its libraries.

    Raises:
        ValueError: a number is not positive.
    """

    def __init__(
        self,
        workers: int,
        timeout_s: float,
        *,
        memory_bytes: int = MEMORY_BYTES,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        for name, value in (("workers", workers), ("timeout_s", timeout_s)):
            if value <= 0:
                raise ValueError(f"{name} must be positive, not {value}")
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._start_timeout_s = start_timeout_s
        self._slots = [_Slot() for _ in range(workers)]
        # Last in, first out: the workers that have their libraries loaded are used first.
        self._idle: asyncio.LifoQueue[_Slot] = asyncio.LifoQueue()
        for slot in self._slots:
            self._idle.put_nowait(slot)
        self._closed = False
        self._ending: set[asyncio.Task[int]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that run now."""
        workers = (slot.worker for slot in self._slots)
        return tuple(worker.pid for worker in workers if worker is not None and worker.alive)

    async def score(self, problem: Problem, answer: str) -> float:
        """Judge an answer. Waits for a free worker; the time-out counts from then.

        Args:
            problem: has the reference and says how to compare.
            answer: the whole text of the model.

        Returns:
            The reward: 1.0 right, 0.0 wrong.

        Raises:
            RewardFailed: there is no reward; its attributes say why and whose fault it is.
        """
        self._check_open()
        job = {
            "kind": problem.kind,
            "reference": problem.reference,
            "answer": answer,
            "timeout_s": self._timeout_s,
        }
        slot = await self._idle.get()
        try:
            return await self._judge(slot, job)
        finally:
            self._idle.put_nowait(slot)

    async def close(self) -> None:
        """End all workers. What is being judged or waits to be fails with `RewardFailed`."""
        self._closed = True
        for slot in self._slots:
            self._dismiss(slot)
        # Whoever had a slot has failed when all are back; who still waits for one fails on getting
        # it, so they go round once more.
        slots = [await self._idle.get() for _ in self._slots]
        for slot in slots:
            self._idle.put_nowait(slot)
        while self._ending:
            await asyncio.gather(*self._ending)

    async def _judge(self, slot: _Slot, job: dict[str, object]) -> float:
        for attempt in range(1, _TRIES + 1):
            try:
                worker = await self._worker(slot)
                return await worker.ask(
                    job, start_timeout_s=self._start_timeout_s, timeout_s=self._timeout_s
                )
            except WorkerLost as lost:
                self._check_open()
                if attempt == _TRIES or not lost.again:
                    raise RewardFailed(str(lost), of_answer=not lost.again) from None
            except OSError as exc:
                reason = f"no reward worker could be started: {exc}"
                raise RewardFailed(reason, of_answer=False) from exc
        raise AssertionError("unreachable")

    async def _worker(self, slot: _Slot) -> WorkerProcess:
        if slot.worker is not None and not slot.worker.alive:
            self._dismiss(slot)
        self._check_open()
        if slot.worker is None:
            slot.worker = await WorkerProcess.spawn(self._memory_bytes)
            if self._closed:
                self._dismiss(slot)
                self._check_open()
        return slot.worker

    def _check_open(self) -> None:
        if self._closed:
            raise RewardFailed("the reward pool was closed", of_answer=False)

    def _dismiss(self, slot: _Slot) -> None:
        """Kill a slot's worker and see to its end in the background."""
        worker, slot.worker = slot.worker, None
        if worker is None:
            return
        worker.kill()
        task = asyncio.get_running_loop().create_task(worker.end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class _Slot:
    """A place for one worker, which comes and goes."""

    def __init__(self) -> None:
        self.worker: WorkerProcess | None = None
