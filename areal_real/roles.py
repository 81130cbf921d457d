"""What a run needs of its parts, so that each can be tested beside others that misbehave."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from areal_real.executor import RealExecutor
from areal_real.learner import SpanTiler, World
from areal_real.parts import InferenceServer, Scorer


class RunningServer(InferenceServer, Protocol):
    """An inference server as a run starts and stops it."""

    @property
    def max_running_rollouts(self) -> int:
        """Rollouts it runs at once."""

    @property
    def kv_cache_tokens(self) -> int:
        """Room of its KV cache."""

    def begin(self, executor: RealExecutor, origin_ns: int, since_ns: int, version: int) -> None:
        """The run begins: hear commands, and tell the executor events and spans from here on.

        Before this, and while it is down, a server takes no notice of commands. `origin_ns` is
        the monotonic clock at the run's time 0, `since_ns` the run time from which spans are
        wanted, `version` what the run takes it to hold.
        """

    async def use(self, version: int) -> None:
        """Before the run begins, or after its end: load these published weights.

        After its end a server that was lost is started again for it.
        """

    async def restart(self, version: int) -> None:
        """Start again after a loss, with these weights."""

    def lose(self, reason: str) -> None:
        """Give it up: what it has is reported, and then that it is lost."""

    def end(self, end_ns: int) -> None:
        """The run ends at this time on its clock: tell the span in progress, nothing after it."""

    async def loads_done(self) -> None:
        """No weights are being loaded any more: what sends them may stop."""

    async def answer(self, input_ids: Sequence[int], max_new_tokens: int) -> list[int]:
        """Outside of any schedule: the likeliest answer."""

    async def stop(self) -> None:
        """End its processes."""


class Backend(Protocol):
    """Makes the parts that work: `areal_real.backend.RealBackend` makes real ones."""

    async def start_world(self, checkpoint: Path | None) -> World:
        """A trainer: from a checkpoint, or fresh and after its warm start."""

    async def start_server(self, server_id: int) -> RunningServer:
        """An inference server, with the model as it was before all training."""

    def new_server(self, server_id: int) -> RunningServer:
        """An inference server that is not started yet; `RunningServer.restart` does it."""

    async def room_for(self, server_id: int) -> None:
        """Return when there is room for one more server; perhaps never."""

    def give_up(self, server_id: int) -> None:
        """A server is not started again: what is held for it is free."""

    def on_crowded(self, make_room: Callable[[], None]) -> None:
        """Call this where the trainer finds no room: the run may give up a server for it."""

    def connect(self, executor: RealExecutor, tiler: SpanTiler) -> None:
        """Where the trainer's spans go from now on."""

    def start_rewards(self) -> contextlib.AbstractAsyncContextManager[Scorer]:
        """The reward workers."""


class Watcher(Protocol):
    """Whoever looks on: the progress bar, or nobody."""

    def phase(self, text: str) -> None:
        """What is going on before the first step."""

    def step(self, row: dict[str, float], steps: int) -> None:
        """A step is done; see `areal_real.metrics.StepMetrics.row`."""

    def note(self, text: str) -> None:
        """Something people should know."""
