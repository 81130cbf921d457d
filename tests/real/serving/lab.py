"""What the tests of real servers share: models, a host that knows the contract, one server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from areal_real.errors import BackendError
from areal_real.serving.collective import TensorSpec
from areal_real.serving.options import Sampling, ServerOptions
from areal_real.serving.segment import Segment
from areal_real.serving.server import ManagedServer
from areal_sched.measurements import EngineSteps, ServerSpan

T = TypeVar("T")

EOS = 1
VOCABULARY = 32
CONTEXT_TOKENS = 1024
MODEL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT_TOKENS,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": EOS,
    "pad_token_id": 0,
    "initializer_range": 0.2,  # so that models differ clearly
}
MODELS = 3
EXACT = 1e-4
"""Log-probs of the server and of Hugging Face differ by less, in fp32."""

NO_END = Sampling(ignore_eos=True)
OPTIONS = ServerOptions(
    max_running_rollouts=8,
    kv_cache_tokens=8192,
    start_timeout_s=300,
    request_timeout_s=120,
    health_interval_s=1,
    health_timeout_s=60,
)


class Partner:
    """The process of partner.py. Its models are the versions: version v is model v modulo 3."""

    backend = "gloo"

    def __init__(self, folder: Path) -> None:
        self.folders = [folder / f"model-{number}" for number in range(MODELS)]
        with (folder / "partner.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("partner.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._turn = asyncio.Lock()
        for number, path in enumerate(self.folders):
            self.call("make", folder=str(path), seed=number, **MODEL)

    def close(self) -> None:
        self._process.communicate()

    def folder(self, version: int) -> Path:
        return self.folders[version % MODELS]

    def call(self, what: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"call": what, "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise BackendError(answer["error"])
        return answer["value"]

    async def acall(self, what: str, **arguments: Any) -> Any:
        async with self._turn:
            return await asyncio.to_thread(self.call, what, **arguments)

    # ---- as a WeightSender ---------------------------------------------------------------------

    async def listen(self, group: str, world_size: int) -> tuple[str, int]:
        return "127.0.0.1", await self.acall("listen", group=group, world_size=world_size)

    async def join(self, group: str) -> None:
        await self.acall("join", group=group)

    async def buckets(self, version: int) -> Sequence[Sequence[TensorSpec]]:
        told = await self.acall("buckets", folder=str(self.folder(version)))
        return [[TensorSpec(name=n, dtype=d, shape=tuple(s)) for n, d, s in b] for b in told]

    async def send(self, group: str, version: int) -> None:
        await self.acall("send", group=group, folder=str(self.folder(version)))

    async def leave(self, group: str) -> None:
        await self.acall("leave", group=group)

    # ---- the reference -------------------------------------------------------------------------

    def logprobs(
        self, version: int, prompt: Sequence[int], answer: Sequence[int], temperature: float = 1.0
    ) -> np.ndarray[Any, Any]:
        """Of an answer's tokens."""
        told = self.call(
            "logprobs",
            folder=str(self.folder(version)),
            ids=[*prompt, *answer],
            temperature=temperature,
        )
        return np.array(told[len(prompt) - 1 :])

    def kept_logprobs(
        self, old: int, new: int, ids: Sequence[int], kept: int
    ) -> np.ndarray[Any, Any]:
        """Of the tokens after ``ids[kept]``, with KV of the first `kept` from the old weights."""
        told = self.call(
            "kept_logprobs",
            old=str(self.folder(old)),
            new=str(self.folder(new)),
            ids=list(ids),
            kept=kept,
            temperature=1.0,
        )
        return np.array(told)

    def greedy(self, version: int, ids: Sequence[int], count: int) -> list[int]:
        answer: list[int] = self.call(
            "greedy", folder=str(self.folder(version)), ids=list(ids), count=count
        )
        return answer


class Supply:
    """Weights by disk, or by broadcast if `collective` is set."""

    def __init__(self, partner: Partner) -> None:
        self._partner = partner
        self.collective = False
        self.wrong_folder: Path | None = None

    def folder(self, version: int) -> Path:
        return self.wrong_folder or self._partner.folder(version)

    @property
    def sender(self) -> Partner | None:
        return self._partner if self.collective else None


class RecordingHost:
    """Notes reports in order, and fails at once where they break the contract."""

    def __init__(self) -> None:
        self.reports: list[tuple[Any, ...]] = []
        self.spans: list[ServerSpan] = []
        self.steps: list[EngineSteps] = []
        self.outstanding: dict[int, list[int]] = {}
        self.lost_reason: str | None = None
        self.broken: list[str] = []

    def _settle(self, rollout_id: int, what: str) -> None:
        if self.outstanding.pop(rollout_id, None) is None:
            self.broken.append(f"{what} of rollout {rollout_id}, which is not on the server")

    def finished(self, server_id: int, rollout_id: int, segment: Segment) -> None:
        self._settle(rollout_id, "finish")
        self.reports.append(("finished", rollout_id, segment))

    def interrupted(
        self, server_id: int, weight_version: int, stopped: Sequence[tuple[int, Segment]]
    ) -> None:
        for rollout_id, _ in stopped:
            self._settle(rollout_id, "interruption")
        self.reports.append(("interrupted", weight_version, dict(stopped)))

    def rollout_failed(self, server_id: int, rollout_id: int, reason: str) -> None:
        self._settle(rollout_id, "failure")
        self.reports.append(("failed", rollout_id, reason))

    def loaded(self, server_id: int, weight_version: int) -> None:
        self.reports.append(("loaded", weight_version))

    def lost(self, server_id: int, reason: str) -> None:
        self.outstanding.clear()
        self.lost_reason = reason
        self.reports.append(("lost", reason))

    def measure(self, span: ServerSpan | EngineSteps) -> None:
        if isinstance(span, EngineSteps):
            self.steps.append(span)
        else:
            self.spans.append(span)

    # ---- for tests -----------------------------------------------------------------------------

    def kinds(self) -> list[str]:
        return [report[0] for report in self.reports]

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [report[1:] for report in self.reports if report[0] == kind]

    def segments(self) -> dict[int, Segment]:
        """Of finished rollouts."""
        return dict(self.of("finished"))


@dataclass
class Lab:
    """A server and what is needed to judge it. Tests run in one event loop, one after another."""

    folder: Path
    partner: Partner
    runner: asyncio.Runner
    options: ServerOptions
    host: RecordingHost = field(default_factory=RecordingHost)

    def __post_init__(self) -> None:
        self.supply = Supply(self.partner)
        self._rollouts = 0
        self.origin_ns = time.monotonic_ns()
        self.server = ManagedServer(
            7,
            self.host,
            self.options,
            NO_END,
            self.supply,
            log_folder=self.folder,
        )

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def start(self) -> None:
        await self.server.start(self.partner.folder(0), 0)
        self.server.begin(self.origin_ns, time.monotonic_ns() - self.origin_ns, 0)

    def fresh(self) -> None:
        """Between tests: nothing is on the server, nothing has been reported."""
        self.run(self.until(lambda: not self.host.outstanding, "the last test's rollouts"))
        self.supply.collective = False
        self.supply.wrong_folder = None
        if not self.server.alive:
            self.run(self.server.restart(self.server.weight_version + 1))
        self.host.reports.clear()
        self.host.broken.clear()
        self.host.lost_reason = None

    @property
    def version(self) -> int:
        return self.server.weight_version

    def submit(self, prompt: Sequence[int], tokens: int, *, answered: Sequence[int] = ()) -> int:
        self._rollouts += 1
        self.resubmit(self._rollouts, prompt, tokens, answered)
        return self._rollouts

    def resubmit(
        self, rollout_id: int, prompt: Sequence[int], tokens: int, answered: Sequence[int]
    ) -> None:
        self.host.outstanding[rollout_id] = list(prompt)
        ids = [*prompt, *answered]
        self.server.submit(rollout_id, ids, tokens, resumed=bool(answered))

    async def until(self, true: Callable[[], object], what: str, timeout_s: float = 120) -> None:
        give_up_s = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < give_up_s, f"waited in vain for {what}"
            await asyncio.sleep(0.005)

    async def settled(self, rollout_ids: Iterable[int]) -> None:
        wanted = list(rollout_ids)
        await self.until(
            lambda: not any(x in self.host.outstanding for x in wanted), f"rollouts {wanted}"
        )
        assert not self.host.broken

    async def generating(self, rollout_ids: Iterable[int], tokens: int = 1) -> None:
        """Until so many tokens of each have been streamed."""
        wanted = list(rollout_ids)

        def enough() -> bool:
            streamed = self.server.streamed()
            return all(streamed.get(x, 0) >= tokens for x in wanted)

        await self.until(enough, f"{tokens} tokens of rollouts {wanted}", 60)

    def check(self, prompt: Sequence[int], segment: Segment) -> None:
        """Every token has the log-prob that the weights of its version give it.

        After an in-place update they do so on the KV cache of the older weights.
        """
        assert len(segment.ids) == len(segment.logprobs) == len(segment.versions) > 0
        assert segment.logprobs.dtype == np.float32
        assert segment.versions.dtype == np.int64
        whole = [*prompt, *segment.ids]
        spans = segment.spans
        assert len(spans) <= 2
        for number, (version, start, end) in enumerate(spans):
            if number == 0:
                told = self.partner.logprobs(version, prompt, segment.ids[:end])
            else:
                told = self.partner.kept_logprobs(
                    spans[0][0], version, whole[: len(prompt) + end], len(prompt) + start - 1
                )
            np.testing.assert_allclose(segment.logprobs[start:end], told, rtol=0, atol=EXACT)
