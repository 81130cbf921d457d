"""Parts of the made-up cluster: costs, a server, the header of its journal."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

from areal_sched import ServerSpan, TrainStepFinished

S = 10**9
TOKEN_NS = 28_000_000
PREFILL_NS = 60_000
LOAD_NS = 9 * S
REWARD_NS = 2 * S
PHASES = (("proximal", 0.18), ("minibatch", 0.62), ("optimizer", 0.05), ("overhead", 0.15))
"""Phases of a training step and their shares of its time."""


@dataclass
class Going:
    """A rollout on a server: ``done`` tokens when it began decoding at ``begin_ns``."""

    done: int
    begin_ns: int
    length: int
    counted: int
    epoch: int


@dataclass
class Server:
    """One made-up server and the span it is in."""

    going: dict[int, Going] = field(default_factory=dict)
    held: set[int] = field(default_factory=set)
    load_until_ns: int = 0
    loading: bool = False
    draining: int | None = None
    version: int = 0
    activity: str = "idle"
    since_ns: int = 0
    prefill_ns: int = 0
    recompute_ns: int = 0
    tokens: int = 0
    recomputed: int = 0

    def progress(self, going: Going, now_ns: int) -> int:
        """Tokens a rollout has by now; credits those not counted yet to the open span."""
        since = max(now_ns - going.begin_ns, 0) // TOKEN_NS
        tokens = min(going.done + since, going.length)
        self.tokens += tokens - going.counted
        going.counted = tokens
        return tokens

    def close(self, server_id: int, now_ns: int) -> ServerSpan | None:
        """End the open span and begin another; None if it has no length."""
        for going in self.going.values():
            self.progress(going, now_ns)
        start_ns, self.since_ns = self.since_ns, now_ns
        length = now_ns - start_ns
        if not length:
            return None
        generating = self.activity == "generate"
        # Rollouts prefill side by side here, so the sum may exceed the span.
        recompute = min(self.recompute_ns, length) if generating else 0
        prefill = min(self.prefill_ns, length - recompute) if generating else 0
        span = ServerSpan(
            server_id=server_id,
            activity=self.activity,
            start_ns=start_ns,
            end_ns=now_ns,
            prefill_ns=prefill,
            recompute_ns=recompute,
            generated_tokens=self.tokens,
            recomputed_tokens=self.recomputed,
        )
        self.prefill_ns = self.recompute_ns = self.tokens = self.recomputed = 0
        return span


@dataclass
class StepDone:
    """The end of a step's training, at which colocated GPUs go back to the servers."""

    event: TrainStepFinished
    lent: bool


class Kept(io.BytesIO):
    """A file in memory whose content outlives its closing."""

    kept = b""

    def close(self) -> None:
        self.kept = self.getvalue()
        super().close()


def header_of(
    scheduler: str, options: dict[str, Any], limits: dict[str, Any], **run: Any
) -> dict[str, Any]:
    """A journal's header as an executor writes it; ``run`` holds what it says of the run."""
    generation, training = run["generation_gpus"], run["training_gpus"]
    return {
        "scheduler": f"areal_sched.schedulers.{scheduler}:{scheduler.title().replace('_', '')}",
        "options": options,
        "limits": limits,
        "run": {
            "name": "made-up",
            "gpus": max(generation, training) if run["colocated"] else generation + training,
            "unused_gpus": 0,
            "group_size": limits["group_size"],
            "train_batch_rollouts": limits["train_batch_rollouts"],
            "config_sha256": "0" * 64,
            "published": None,
            "power": {
                "busy_watts": 700.0,
                "idle_watts": 100.0,
                "host_watts_per_gpu": 50.0,
                "power_usage_effectiveness": 1.25,
                "usd_per_gpu_hour": 2.0,
            },
            **run,
        },
    }
