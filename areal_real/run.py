"""One real run, from its parts to its end: fresh, or taken up from a checkpoint.

The same controller, scheduler and journal as in simulation. What is here: the order in which
parts start and stop, what is kept on disk, and what a lost server or trainer leads to.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from areal_real.checkpoints import Checkpoint
from areal_real.config import RealConfig
from areal_real.learner import World
from areal_real.live import Live, Setting
from areal_real.parts import Scorer
from areal_real.roles import RunningServer, Watcher
from areal_real.store import TrajectoryStore
from areal_sched.errors import ConfigError
from areal_sched.load import built_in

After: TypeAlias = Callable[[Sequence[RunningServer], Scorer], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        steps: training steps done, over all resumptions.
        interrupted: the user ended it before its last step.
    """

    steps: int
    interrupted: bool


class Run:
    """One run, or the part of it until the program ends."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    async def go(self, *, resume: bool, after: After | None = None) -> Outcome:
        """Run until the last step, or until the user stops it.

        Args:
            resume: go on from the newest checkpoint.
            after: what to do with the servers and reward workers when the last step is done.

        Raises:
            ConfigError: nothing to resume.
            NoCheckpoint: the trainer is lost with steps that no checkpoint has; resume.
            BackendError: a part failed for good; the run can be resumed. Or all checkpoints are
                damaged, and it cannot.
            ProtocolError: a bug of the scheduler or of ours; the journal ends with the culprit.
        """
        checkpoint = None
        if resume:
            checkpoints, note = self._setting.checkpoints, self._setting.watcher.note
            checkpoint = await asyncio.to_thread(checkpoints.newest_sound, note)
        if resume and checkpoint is None:
            raise ConfigError(f"{self._setting.folder.path}: has no checkpoint to resume from")
        before = checkpoint.version if checkpoint else 0
        steps = self._setting.config.workload.steps
        if before >= steps:
            self._setting.watcher.note(f"all {steps} steps are done")
            return Outcome(before, False)
        self._setting.folder.make()
        async with contextlib.AsyncExitStack() as stack:
            stop = stack.enter_context(_stop_on_signals(self._setting.watcher))
            store = TrajectoryStore(self._setting.folder.store)
            stack.callback(store.close)
            scorer = await stack.enter_async_context(self._setting.backend.start_rewards())
            world, servers = await self._start(stack, checkpoint, stop)
            if world is None:
                return Outcome(before, True)
            with contextlib.ExitStack() as files:
                live = Live(self._setting, checkpoint, store, scorer, world, servers, files)
                await live.run(stop)
            done = int(live.controller.state.weight_version)
            if done >= steps and after is not None:
                ending = asyncio.ensure_future(after(servers, scorer))
                stopped = asyncio.ensure_future(stop.wait())
                waits: set[asyncio.Future[Any]] = {ending, stopped}
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                stopped.cancel()
                if ending.done():
                    ending.result()
                else:
                    ending.cancel()
                    await asyncio.wait({ending})
                    self._setting.watcher.note("the evaluation was broken off")
                    return Outcome(done, True)
        return Outcome(done, done < steps)

    async def _start(
        self, stack: contextlib.AsyncExitStack, checkpoint: Checkpoint | None, stop: asyncio.Event
    ) -> tuple[World | None, list[RunningServer]]:
        """Start trainer and servers, all at a time; the trainer makes the first checkpoint."""
        setting = self._setting
        version = checkpoint.version if checkpoint else 0
        weights = setting.folder.weights(version)
        published = asyncio.Event()

        async def trainer() -> World:
            world = await setting.backend.start_world(checkpoint.trainer if checkpoint else None)
            stack.push_async_callback(world.stop)
            await world.export(weights)
            if checkpoint is None:
                await setting.checkpoints.save(world, 0, 0)
            published.set()
            return world

        async def server(server_id: int) -> RunningServer:
            started = await setting.backend.start_server(server_id)
            stack.push_async_callback(started.stop)
            await published.wait()
            await started.use(version)
            return started

        setting.watcher.phase("starting the trainer and the servers")
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(trainer())]
        tasks += [asyncio.create_task(server(x)) for x in range(setting.config.real.server.count)]
        stopped = asyncio.create_task(stop.wait())
        try:
            waits: set[asyncio.Future[Any]] = {*tasks}
            while waits and not stop.is_set():
                done, waits = await asyncio.wait(
                    {*waits, stopped}, return_when=asyncio.FIRST_COMPLETED
                )
                waits.discard(stopped)
                for task in done - {stopped}:
                    task.result()  # raises what went wrong, without waiting for the others
            if stop.is_set():
                return None, []
            world, *servers = (task.result() for task in tasks)
            return world, servers
        finally:
            stopped.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def _stop_on_signals(watcher: Watcher) -> Iterator[asyncio.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; the second Ctrl-C ends the program.

    SIGTERM never does: a batch system sends it to every process of a job, whoever has passed on
    an earlier one.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    main = asyncio.current_task()
    interrupts = 0

    def asked(number: signal.Signals) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        if interrupts > 1 and main is not None:
            main.cancel()
        stop.set()

    signals = (signal.SIGINT, signal.SIGTERM)
    try:
        for number in signals:
            loop.add_signal_handler(number, asked, number)
    except (ValueError, RuntimeError):  # not in the main thread: whoever is, handles Ctrl-C
        yield stop
        return
    try:
        yield stop
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def header_of(config: RealConfig, name: str, sha256: str) -> dict[str, Any]:
    """The journal's header: what replay and analysis need to know of the run.

    A process of servers or trainer counts as one GPU, also on the CPU. Servers that have not joined
    yet are counted: their GPUs are down.

    Args:
        config: the run's configuration.
        name: the run's name, shown in titles.
        sha256: of the resolved configuration.
    """
    limits = config.limits()
    path = config.scheduler.class_path
    servers, per_server = config.real.server.most, config.real.server.tensor_parallel
    training = config.real.trainer.world_size
    used = servers * per_server + training
    gpus = max(used, config.cluster.gpus if config.real.device == "cuda" else 0)
    return {
        "scheduler": built_in().get(path, path),
        "options": dict(config.scheduler.options),
        "limits": dataclasses.asdict(limits),
        "layout": layout_of(config),
        "run": {
            "name": name,
            "gpus": gpus,
            "generation_gpus": servers * per_server,
            "gpus_per_server": per_server,
            "servers": servers,
            "training_gpus": training,
            "colocated": False,
            "unused_gpus": gpus - used,
            "group_size": limits.group_size,
            "train_batch_rollouts": limits.train_batch_rollouts,
            "steps": config.workload.steps,
            "seed": config.real.seed,
            "config_sha256": sha256,
            "published": None,
        },
    }


def layout_of(config: RealConfig) -> dict[str, Any]:
    """The header's ``layout``: what a simulation of the same run has to be set up with.

    ``host_cores``: processors that servers and trainer share, None where they have GPUs.
    """
    real, workload = config.real, config.workload
    trainer = real.trainer
    return {
        "device": real.device,
        "host_cores": len(os.sched_getaffinity(0)) if real.device == "cpu" else None,
        "group_size": workload.group_size,
        "prompts_per_step": workload.prompts_per_step,
        "max_prompt_tokens": workload.max_prompt_tokens,
        "max_response_tokens": workload.max_response_tokens,
        "data_parallel": trainer.data_parallel,
        "pipeline_parallel": trainer.pipeline_parallel,
        "tensor_parallel": trainer.tensor_parallel,
        "trainer_threads": trainer.threads,
        "minibatches": trainer.minibatches,
        "micro_batch_tokens": trainer.micro_batch_tokens,
        "recompute_proximal": real.ppo.objective == "decoupled",
        "reward_workers": real.rewards.workers,
        "checkpoint_every_steps": real.checkpoint_every_steps,
    }
