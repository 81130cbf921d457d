"""How a server is run, and how tokens are drawn."""

from __future__ import annotations

import ipaddress
import re
import secrets
import sys
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from areal_sched.errors import ConfigError

Device: TypeAlias = Literal["cpu", "cuda"]
DType: TypeAlias = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: 0 is greedy. The log-probs a server reports are those after the temperature,
            so a trainer has to divide its logits by it too (greedy: by 1).
        top_p: draw among the likeliest tokens with this probability together. Log-probs are those
            before this cut: keep it at 1 for training.
        stop_token_ids: end an answer, beside the model's own end token.
        ignore_eos: the model's own end token does not end an answer.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < 1e6:
            raise ConfigError(f"temperature = {self.temperature}: expected 0 or more")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p = {self.top_p}: expected more than 0 and at most 1")

    def parameters(self, max_new_tokens: int) -> dict[str, Any]:
        """As SGLang's ``sampling_params``."""
        return {
            "max_new_tokens": max_new_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "stop_token_ids": list(self.stop_token_ids),
            "ignore_eos": self.ignore_eos,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How one server is run.

    Attributes:
        device: ``cpu`` or ``cuda``; each has a launcher.
        tensor_parallel: processes that share the model.
        dtype: of weights and KV cache.
        max_running_rollouts: requests that run at once; more wait.
        kv_cache_tokens: room of the KV cache; None lets SGLang take the memory it finds (cuda).
        threads: OpenMP threads of each process (cpu).
        host: address to listen on.
        api_token: that the server asks for, of every request; by default a fresh one. Who has it
            and reaches the port controls the model. Printable ASCII, without spaces.
        seed: of sampling. Answers also depend on which requests share a batch.
        stream_interval_tokens: a request's tokens are sent every so many, and so outlive the
            server's death; 0 sends them when it ends.
        record_steps: let it publish what each step of its engine did; see
            `areal_real.serving.steps`.
        prefix_cache: keep KV caches of prompts, each usable only with the weights it was begun
            with.
        start_timeout_s: from launch to ready.
        request_timeout_s: of requests other than generation, loading weights among them.
        health_interval_s, health_timeout_s: a server that does not answer a probe within the
            time-out, twice, is taken for hung and killed.
        stop_grace_s: from SIGTERM to SIGKILL.
        python: interpreter that has SGLang installed.
        extra_args: further flags for SGLang, last.
    """

    device: Device = "cpu"
    tensor_parallel: int = 1
    dtype: DType = "float32"
    max_running_rollouts: int = 32
    kv_cache_tokens: int | None = 16384
    threads: int = 1
    host: str = "127.0.0.1"
    api_token: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    seed: int = 1
    stream_interval_tokens: int = 0
    record_steps: bool = True
    prefix_cache: bool = True
    start_timeout_s: float = 300.0
    request_timeout_s: float = 300.0
    health_interval_s: float = 5.0
    health_timeout_s: float = 30.0
    stop_grace_s: float = 1.0
    python: str = sys.executable
    extra_args: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise ConfigError(f"device = {self.device!r}: expected 'cpu' or 'cuda'")
        if self.dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"dtype = {self.dtype!r}: expected 'float32' or 'bfloat16'")
        for name in ("tensor_parallel", "max_running_rollouts", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: expected at least 1")
        for name in ("start", "request", "health"):
            if not getattr(self, f"{name}_timeout_s") > 0:
                raise ConfigError(f"{name}_timeout_s must be more than 0")
        if self.stream_interval_tokens < 0:
            raise ConfigError("stream_interval_tokens must be 0 (do not stream) or more")
        if self.kv_cache_tokens is None and self.device == "cpu":
            raise ConfigError("kv_cache_tokens must be given for device 'cpu'")
        if self.kv_cache_tokens is not None and self.kv_cache_tokens < 1:
            raise ConfigError(f"kv_cache_tokens = {self.kv_cache_tokens}: expected at least 1")
        if not re.fullmatch(r"[!-~]+", self.api_token):
            raise ConfigError("api_token: expected printable ASCII characters without spaces")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
