"""Makes the parts of a real run: SGLang servers, a Megatron-Core world, reward workers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from areal_real.config import RealConfig
from areal_real.errors import BackendError
from areal_real.executor import RealExecutor
from areal_real.folder import RunFolder
from areal_real.learner import SpanTiler
from areal_real.placement.local import LocalPlacement
from areal_real.placement.roles import Placement, StartServer
from areal_real.rewards.pool import RewardPool
from areal_real.serving.collective import WeightSender
from areal_real.serving.options import Sampling, ServerOptions
from areal_real.serving.segment import Segment
from areal_real.serving.server import ManagedServer
from areal_real.training.settings import TrainerSettings
from areal_real.training.world import TrainerWorld
from areal_sched.commands import UpdateMode
from areal_sched.measurements import EngineSteps, ServerSpan

_LOOK_S = 0.02

BUCKET_BYTES: Mapping[str, int] = {"cpu": 2**24, "cuda": 2**28}
"""Of a broadcast of weights. Each costs a request to the server, some milliseconds, which its bytes
should outlast. On a CPU much larger ones are slower: fresh memory costs the server more."""

HELD_VERSIONS = 2
"""Versions that the trainer keeps to be sent: a server may still load one when the next is out."""


class HostedServer:
    """An SGLang server as a run sees it: tells the executor, once there is one, what it reports.

    Args:
        server_id: its id.
        options: how it is run.
        sampling: of rollouts.
        run: the run's directory.
        start: starts its process.
        sender: gives whoever sends weights now; nobody where they are read from disk.
    """

    def __init__(
        self,
        server_id: int,
        options: ServerOptions,
        sampling: Sampling,
        run: RunFolder,
        *,
        start: StartServer,
        sender: Callable[[], WeightSender | None],
    ) -> None:
        self._run = run
        self._sender = sender
        self._executor: RealExecutor | None = None
        self._begun = False
        self._loading = False
        self._used: asyncio.Future[None] | None = None
        self.server = ManagedServer(
            server_id, self, options, sampling, self, log_folder=run.logs, start=start
        )

    @property
    def max_running_rollouts(self) -> int:
        """Rollouts it runs at once."""
        return self.server.max_running_rollouts

    @property
    def kv_cache_tokens(self) -> int:
        """Room of its KV cache."""
        return self.server.kv_cache_tokens

    # ---- where its weights are -----------------------------------------------------------------

    def folder(self, version: int) -> Path:
        """A Hugging Face folder with published weights."""
        return self._run.weights(version)

    @property
    def sender(self) -> WeightSender | None:
        """Who sends them while the run lasts; before and after it they are read from disk."""
        return self._sender() if self._executor is not None else None

    # ---- what a run asks -----------------------------------------------------------------------

    def begin(self, executor: RealExecutor, origin_ns: int, since_ns: int, version: int) -> None:
        """The run begins; see `areal_real.roles.RunningServer.begin`."""
        self._executor = executor
        self._begun = True
        self.server.begin(origin_ns, since_ns, version)

    def lose(self, reason: str) -> None:
        """Give it up: what it has is reported, and then that it is lost."""
        self.server.lose(reason)

    def end(self, end_ns: int) -> None:
        """The run ends: tell the span in progress, and then nothing more."""
        self.server.close_spans(end_ns)
        self._executor = None

    async def loads_done(self) -> None:
        """No weights are being loaded any more; over too when the server is lost over them."""
        while self._loading:
            await asyncio.sleep(_LOOK_S)

    async def use(self, version: int) -> None:
        """Before the run begins, or after its end: load these published weights.

        After its end a server that was lost is started again for it.

        Raises:
            BackendError: it cannot.
        """
        if not self._begun:
            await self.server.use(version)
            return
        await self.loads_done()  # what the run had begun
        if not self.server.alive:
            await self.server.restart(version)
            return
        self._used = asyncio.get_running_loop().create_future()
        self.server.load(version, "interrupt")
        await self._used

    async def answer(self, input_ids: Sequence[int], max_new_tokens: int) -> list[int]:
        """Outside of any schedule: the likeliest answer.

        Raises:
            BackendError: the server will not, or is lost.
        """
        greedy = Sampling(temperature=0)
        return list((await self.server.ask(input_ids, max_new_tokens, greedy)).ids)

    async def restart(self, version: int) -> None:
        """Start again after a loss, with these weights.

        Raises:
            BackendError: it does not come up.
        """
        await self.server.restart(version)

    async def stop(self) -> None:
        """End its processes."""
        await self.server.stop()

    def submit(
        self,
        rollout_id: int,
        input_ids: Sequence[int],
        max_new_tokens: int,
        *,
        resumed: bool = False,
    ) -> None:
        """Generate."""
        if self._executor is not None:
            self.server.submit(rollout_id, input_ids, max_new_tokens, resumed=resumed)

    def interrupt(self, rollout_ids: Sequence[int]) -> None:
        """Stop rollouts and report what they have."""
        if self._executor is not None:
            self.server.interrupt(rollout_ids)

    def abort(self, rollout_ids: Sequence[int]) -> None:
        """Stop rollouts for good."""
        if self._executor is not None:
            self.server.abort(rollout_ids)

    def load(self, version: int, mode: UpdateMode) -> None:
        """Load published weights."""
        if self._executor is not None and self.server.alive:
            self._loading = True
            self.server.load(version, mode)

    # ---- what the server reports ---------------------------------------------------------------

    def finished(self, server_id: int, rollout_id: int, segment: Segment) -> None:
        """A rollout has its last token."""
        if self._executor is not None:
            self._executor.finished(server_id, rollout_id, segment)

    def interrupted(
        self, server_id: int, weight_version: int, stopped: Sequence[tuple[int, Segment]]
    ) -> None:
        """Rollouts were stopped."""
        if self._executor is not None:
            self._executor.interrupted(server_id, weight_version, stopped)

    def rollout_failed(self, server_id: int, rollout_id: int, reason: str) -> None:
        """A rollout cannot go on."""
        if self._executor is not None:
            self._executor.rollout_failed(server_id, rollout_id, reason)

    def loaded(self, server_id: int, weight_version: int) -> None:
        """The server generates with these weights now."""
        self._loading = False
        if self._used is not None and not self._used.done():
            self._used.set_result(None)
        if self._executor is not None:
            self._executor.loaded(server_id, weight_version)

    def lost(self, server_id: int, reason: str) -> None:
        """The server is gone."""
        self._loading = False
        if self._used is not None and not self._used.done():
            self._used.set_exception(BackendError(f"server {server_id}: {reason}"))
        if self._executor is not None:
            self._executor.lost(server_id, reason)

    def measure(self, span: ServerSpan | EngineSteps) -> None:
        """What the server did."""
        if self._executor is not None:
            self._executor.measure(span)


class RealBackend:
    """The parts, as the configuration wants them.

    Args:
        config: the run's.
        folder: its directory; ``model/`` is there.
        warm_start: trains a fresh world before the run begins.
        placement: where processes start.
    """

    def __init__(
        self,
        config: RealConfig,
        folder: RunFolder,
        warm_start: Callable[[TrainerWorld], Awaitable[None]],
        placement: Placement,
    ) -> None:
        self._config = config
        self._folder = folder
        self._placement = placement
        self._token = folder.new_token()
        self._warm_start = warm_start
        self._tiler: SpanTiler | None = None
        self._world: TrainerWorld | None = None

    async def start_world(self, checkpoint: Path | None) -> TrainerWorld:
        """A trainer: from a checkpoint, or fresh and after its warm start.

        Raises:
            BackendError: it does not come up.
        """
        world = TrainerWorld(
            trainer_settings(self._config),
            log=self._folder.logs / "trainer.log",
            on_span=self._span,
            start=self._placement.trainer(),
            host=self._placement.address,
            token=self._token,
        )
        await world.start(checkpoint or self._folder.model)
        if checkpoint is None:
            try:
                await self._warm_start(world)
            except BaseException:
                await world.stop()
                raise
        self._world = world
        return world

    async def start_server(self, server_id: int) -> HostedServer:
        """An inference server, with the model as it was before all training.

        Raises:
            BackendError: it does not come up.
        """
        server = self.new_server(server_id)
        await server.server.start(self._folder.model, 0)
        return server

    def new_server(self, server_id: int) -> HostedServer:
        """An inference server that is not started yet: `HostedServer.restart` does it."""
        return HostedServer(
            server_id,
            server_options(self._config, server_id, self._token),
            Sampling(temperature=self._config.real.server.temperature),
            self._folder,
            start=self._placement.server(server_id),
            sender=self._sender,
        )

    async def room_for(self, server_id: int) -> None:
        """Return when there is room for one more server; perhaps never."""
        await self._placement.room_for(server_id)

    def give_up(self, server_id: int) -> None:
        """A server is not started again: what is held for it is free."""
        self._placement.release(server_id)

    def connect(self, executor: RealExecutor, tiler: SpanTiler) -> None:
        """Where the trainer's spans go from now on."""
        self._tiler = tiler

    def on_crowded(self, make_room: Callable[[], None]) -> None:
        """Call this where the trainer finds no room: the run may give up a server for it."""
        self._placement.on_crowded(make_room)

    def start_rewards(self) -> RewardPool:
        """The reward workers."""
        rewards = self._config.real.rewards
        return RewardPool(rewards.workers, rewards.timeout_s)

    def _sender(self) -> WeightSender | None:
        if self._config.real.server.weight_transfer == "disk" or self._world is None:
            return None
        return self._world.sender

    def _span(
        self,
        activity: str,
        version: int,
        start_ns: int,
        end_ns: int,
        waiting_ns: int,
        micro_batches: int,
    ) -> None:
        if self._tiler is not None:
            self._tiler.span(activity, version, start_ns, end_ns, waiting_ns, micro_batches)


def server_options(config: RealConfig, server_id: int, token: str) -> ServerOptions:
    """How a server is run, which asks for this token."""
    server = config.real.server
    extra = list(server.extra_args)
    if config.real.device == "cuda":
        extra += ["--mem-fraction-static", str(server.static_memory_fraction)]
    return ServerOptions(
        device=config.real.device,
        tensor_parallel=server.tensor_parallel,
        dtype=config.real.model.dtype,
        max_running_rollouts=server.max_running_rollouts,
        kv_cache_tokens=server.kv_cache_tokens,
        threads=server.threads,
        api_token=token,
        seed=config.real.seed + server_id,
        stream_interval_tokens=server.stream_interval_tokens,
        record_steps=server.record_engine,
        start_timeout_s=server.start_timeout_s,
        request_timeout_s=server.request_timeout_s,
        extra_args=tuple(extra),
    )


def trainer_settings(config: RealConfig) -> TrainerSettings:
    """What the trainer is told once."""
    trainer, ppo = config.real.trainer, config.real.ppo
    return TrainerSettings(
        device=config.real.device,
        dtype=config.real.model.dtype,
        seed=config.real.seed,
        temperature=config.real.server.temperature,
        held_versions=HELD_VERSIONS if config.real.server.weight_transfer == "collective" else 0,
        bucket_bytes=config.real.server.bucket_bytes or BUCKET_BYTES[config.real.device],
        tensor_parallel=trainer.tensor_parallel,
        pipeline_parallel=trainer.pipeline_parallel,
        data_parallel=trainer.data_parallel,
        distributed_optimizer=trainer.distributed_optimizer,
        recompute_activations=trainer.recompute_activations,
        micro_batch_tokens=trainer.micro_batch_tokens,
        minibatches=trainer.minibatches,
        learning_rate=trainer.learning_rate,
        warmup_steps=trainer.warmup_steps,
        adam_beta1=trainer.adam_beta1,
        adam_beta2=trainer.adam_beta2,
        adam_eps=trainer.adam_eps,
        weight_decay=trainer.weight_decay,
        grad_clip=trainer.grad_clip or 0.0,
        threads=trainer.threads,
        objective=ppo.objective,
        clip=ppo.clip,
        behaviour_weight_cap=ppo.behaviour_weight_cap,
        entropy_coefficient=ppo.entropy_coefficient,
        baseline=ppo.baseline,
        divide_by_std=ppo.divide_by_std,
        normalise_advantages=ppo.normalise_advantages,
        start_timeout_s=trainer.start_timeout_s,
    )


def local_placement(config: RealConfig) -> LocalPlacement:
    """Everything on this machine: servers have the first GPUs, the trainer those after them."""
    real = config.real
    on_gpus = real.device == "cuda"
    return LocalPlacement(
        server_gpus=real.server.tensor_parallel if on_gpus else 0,
        servers=real.server.count,
        trainer_gpus=real.trainer.world_size if on_gpus else 0,
    )
