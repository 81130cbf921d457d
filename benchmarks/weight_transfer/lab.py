"""Real servers and a real trainer with one random model, as `Drive` needs them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from areal_real.serving.collective import WeightSender
from areal_real.serving.host import ServerHost
from areal_real.serving.options import Sampling, ServerOptions
from areal_real.serving.segment import Segment
from areal_real.serving.server import ManagedServer
from areal_real.tasks.model import TinyShape, write_model
from areal_real.training.batch import Batch, Sample
from areal_real.training.settings import TrainerSettings
from areal_real.training.world import TrainerWorld
from areal_sched.measurements import EngineSteps, ServerSpan
from benchmarks.weight_transfer.updates import standstill

VOCABULARY = 512
EOS = 1
SEED = 1
ROLLOUTS_PER_SERVER = 4
PROMPT = [3, 5, 7, 9, 11, 13]
PATIENCE_S = 600.0
NS = 1e-9

SHAPES = {
    "1M": TinyShape(layers=4, hidden=64, ffn=192, heads=4, kv_heads=2),
    "8M": TinyShape(layers=4, hidden=192, ffn=576, heads=4, kv_heads=2),
    "26M": TinyShape(layers=8, hidden=256, ffn=768, heads=8, kv_heads=4),
    "72M": TinyShape(layers=10, hidden=384, ffn=1152, heads=8, kv_heads=4),
    "199M": TinyShape(layers=10, hidden=640, ffn=1920, heads=10, kv_heads=5),
}
"""By about how many bytes the weights have, in float32."""


class Lab:
    """A trainer and servers that have started with one random model.

    Also the servers' host: what they report goes to the driver in progress.
    """

    def __init__(self, path: Path, servers: int, bucket_bytes: int) -> None:
        self.path = path
        self.method = "disk"
        self.version = 0
        self.driver: ServerHost | None = None
        self._spans: dict[int, list[tuple[str, int, int]]] = {}
        self._publish_ns: list[int] = []
        self._origin_ns = time.monotonic_ns()
        settings = TrainerSettings(
            micro_batch_tokens=64,
            learning_rate=1e-4,
            held_versions=2,
            bucket_bytes=bucket_bytes,
        )
        self.world = TrainerWorld(settings, log=path / "trainer.log", on_span=self._trained)
        options = ServerOptions(
            max_running_rollouts=2 * ROLLOUTS_PER_SERVER,
            kv_cache_tokens=8192,
            request_timeout_s=PATIENCE_S,
            health_timeout_s=PATIENCE_S,
            record_steps=False,
        )
        self.servers = [
            ManagedServer(number, self, options, Sampling(ignore_eos=True), self, log_folder=path)
            for number in range(servers)
        ]

    @property
    def size_bytes(self) -> int:
        """Of the weights."""
        return (self.path / "model" / "model.safetensors").stat().st_size

    @property
    def batch(self) -> Path:
        """What is trained on, again and again."""
        return self.path / "batch.safetensors"

    async def start(self, shape: TinyShape) -> None:
        """Make the model, then start everything.

        Raises:
            BackendError: something did not come up.
        """
        model = self.path / "model"
        write_model(model, vocab_size=VOCABULARY, eos_id=EOS, seed=SEED, shape=shape)
        samples = [
            Sample(
                rollout_id=number,
                group_id=0,
                prompt_ids=PROMPT,
                response_ids=PROMPT,
                behaviour_logprobs=np.full(len(PROMPT), -6.0, np.float32),
                versions=np.zeros(len(PROMPT), np.int64),
                reward=float(number),
            )
            for number in range(2)
        ]
        Batch.of(samples).save(self.batch)
        await self.world.start(model)
        for server in self.servers:  # one by one: their start takes all there is
            await server.start(model, 0)
            self._spans[server.server_id] = []
            server.begin(self._origin_ns, time.monotonic_ns() - self._origin_ns, 0)

    async def stop(self) -> None:
        """End all processes."""
        for server in self.servers:
            await server.stop()
        await self.world.stop()

    async def publish(self, version: int) -> float:
        """Train a step and publish what comes of it; seconds that the publishing took."""
        await self.world.train(version, self.batch)
        self._publish_ns.clear()
        await self.world.export(self.folder(version))
        shutil.rmtree(self.folder(version - 2), ignore_errors=True)
        self.version = version
        # The trainer writes the folder, and then keeps a copy for broadcasts.
        return sum(self._publish_ns[: 1 if self.method == "disk" else None]) * NS

    def since(self, start_ns: int, end_ns: int, servers: int) -> tuple[int, int]:
        """`standstill` of the first servers, on the monotonic clock."""
        shift = self._origin_ns
        spans = [self._spans[number] for number in range(servers)]
        return standstill(spans, start_ns - shift, end_ns - shift)

    def loads(self, start_ns: int, servers: int) -> tuple[float, ...]:
        """Seconds that each of the first servers was last loading, since a time."""
        shift = self._origin_ns
        return tuple(
            [
                (end - start) * NS
                for activity, start, end in self._spans[number]
                if activity == "load" and end > start_ns - shift
            ][-1]
            for number in range(servers)
        )

    # ---- where servers find weights -----------------------------------------------------------

    def folder(self, version: int) -> Path:
        """Of a version; the trainer writes it."""
        return self.path / "weights" / f"{version:06d}"

    @property
    def sender(self) -> WeightSender | None:
        """The trainer, if that is the method."""
        return self.world.sender if self.method == "collective" else None

    # ---- what servers and trainer report ------------------------------------------------------

    def finished(self, server_id: int, rollout_id: int, segment: Segment) -> None:
        """A rollout has its last token."""
        if self.driver is not None:
            self.driver.finished(server_id, rollout_id, segment)

    def interrupted(
        self, server_id: int, weight_version: int, stopped: Sequence[tuple[int, Segment]]
    ) -> None:
        """Rollouts were stopped."""
        if self.driver is not None:
            self.driver.interrupted(server_id, weight_version, stopped)

    def rollout_failed(self, server_id: int, rollout_id: int, reason: str) -> None:
        """A rollout cannot go on."""
        if self.driver is not None:
            self.driver.rollout_failed(server_id, rollout_id, reason)

    def loaded(self, server_id: int, weight_version: int) -> None:
        """A server has new weights."""
        if self.driver is not None:
            self.driver.loaded(server_id, weight_version)

    def lost(self, server_id: int, reason: str) -> None:
        """A server is gone."""
        if self.driver is not None:
            self.driver.lost(server_id, reason)

    def measure(self, span: ServerSpan | EngineSteps) -> None:
        """What a server did."""
        if isinstance(span, ServerSpan):
            self._spans[span.server_id].append((span.activity, span.start_ns, span.end_ns))

    def _trained(self, activity: str, version: int, start_ns: int, end_ns: int, *_: int) -> None:
        if activity == "publish":
            self._publish_ns.append(end_ns - start_ns)
