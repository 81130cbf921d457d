"""The table ``[real.server]``: the inference servers."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from areal_sched.config.options import (
    Section,
    choice,
    flag,
    number,
    strings,
    whole,
)
from areal_sched.errors import ConfigError

OWN_FLAGS = {
    "--host": "real.listen",
    "--port": "nothing: a free one is taken",
    "--model-path": "real.model.path",
    "--model": "real.model.path",
    "--dtype": "real.model.dtype",
    "--device": "real.device",
    "--tp": "real.server.tensor_parallel",
    "--tp-size": "real.server.tensor_parallel",
    "--tensor-parallel-size": "real.server.tensor_parallel",
    "--max-running-requests": "real.server.max_running_rollouts",
    "--max-total-tokens": "real.server.kv_cache_tokens",
    "--mem-fraction-static": "real.server.static_memory_fraction",
    "--stream-interval": "real.server.stream_interval_tokens",
    "--enable-forward-pass-metrics": "real.server.record_engine",
    "--api-key": "nothing: every run makes a token of its own",
}
"""Flags of the inference server that `extra_args` may not hold, and the key that sets them."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig(Section):
    """The inference servers, SGLang, all alike."""

    TABLE: ClassVar[str] = "real.server"

    count: int = whole("servers that the run begins with", 1)
    max_count: int | None = whole(
        "servers at most: with `--engine ray`, nodes that join bring more, up to this",
        None,
        optional=True,
        otherwise="`count`",
    )
    tensor_parallel: int = whole("GPUs, or processes on the CPU, of one server", 1)
    max_running_rollouts: int = whole("rollouts that run at once on one server", 32)
    kv_cache_tokens: int | None = whole(
        "tokens that the KV cache of one server holds",
        None,
        unit="tokens",
        optional=True,
        otherwise="on a GPU what `static_memory_fraction` leaves; on the CPU it has to be set",
    )
    static_memory_fraction: float = number(
        "on a GPU: share of its memory for weights and KV cache together", 0.8, above=0, below=1
    )
    stream_interval_tokens: int = whole(
        "tokens are sent in pieces of this size, and outlive the server; 0: all at the end",
        16,
        unit="tokens",
        least=0,
    )
    weight_transfer: Literal["disk", "collective"] = choice(
        "`disk`: the trainer writes, every server reads; `collective`: broadcast by NCCL, on the"
        " CPU by gloo",
        ("disk", "collective"),
        "disk",
    )
    bucket_bytes: int | None = whole(
        "`collective`: weights are broadcast in pieces of this size; a server needs it twice beside"
        " its weights",
        None,
        unit="byte",
        optional=True,
        otherwise="16 MiB on the CPU, 256 MiB on a GPU",
    )
    temperature: float = number("of sampling", 1.0, above=0, most=2)
    threads: int = whole("CPU threads of one process of a server", 1)
    record_engine: bool = flag(
        "the journal tells what the engines did in each step, which a calibration needs", True
    )
    start_timeout_s: float = number("until it answers", 300.0, unit="s", above=0)
    request_timeout_s: float = number(
        "of requests other than generation, loading weights among them", 300.0, unit="s", above=0
    )
    extra_args: tuple[str, ...] = strings("further command-line flags of SGLang")

    def _check(self) -> None:
        if self.max_count is not None and self.max_count < self.count:
            raise ConfigError(
                f"real.server.max_count = {self.max_count}: less than real.server.count ="
                f" {self.count}"
            )
        for argument in self.extra_args:
            name = argument.partition("=")[0]
            if name in OWN_FLAGS:
                raise ConfigError(f"real.server.extra_args: {name} is set by {OWN_FLAGS[name]}")

    @property
    def most(self) -> int:
        """Servers at most."""
        return self.max_count or self.count

    @property
    def gpus(self) -> int:
        """GPUs of all servers together."""
        return self.count * self.tensor_parallel
