"""The table ``[real.server]``: the inference servers."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from typing import ClassVar, Literal

from areal_sched.config.options import (
    Section,
    choice,
    flag,
    number,
    string,
    strings,
    toml_value,
    whole,
)
from areal_sched.errors import ConfigError

_HOST = re.compile(r"[A-Za-z0-9_.:-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

OWN_FLAGS = {
    "--host": "real.server.host",
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
    "--api-key": "real.server.token_variable, since a secret does not belong in a file",
}
"""Flags of the inference server that `extra_args` may not hold, and the key that sets them."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig(Section):
    """The inference servers, SGLang, all alike."""

    TABLE: ClassVar[str] = "real.server"

    count: int = whole("servers", 1)
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
    temperature: float = number("of sampling", 1.0, above=0, most=2)
    threads: int = whole("CPU threads of one process of a server", 1)
    record_engine: bool = flag(
        "the journal tells what the engines did in each step, which a calibration needs", True
    )
    start_timeout_s: float = number("until it answers", 300.0, unit="s", above=0)
    request_timeout_s: float = number(
        "of requests other than generation, loading weights among them", 300.0, unit="s", above=0
    )
    host: str = string(
        "address that servers listen on; any but a loopback address needs `token_variable`",
        "127.0.0.1",
    )
    token_variable: str | None = string(
        "environment variable that holds the secret which every request has to show",
        None,
        optional=True,
        otherwise="no secret",
    )
    extra_args: tuple[str, ...] = strings("further command-line flags of SGLang")

    def _check(self) -> None:
        if not _HOST.fullmatch(self.host):
            raise ConfigError(f"real.server.host = {toml_value(self.host)}: expected an address")
        variable = self.token_variable
        if variable is not None and not _VARIABLE.fullmatch(variable):
            # The value is not shown: it may be the secret itself.
            raise ConfigError(
                "real.server.token_variable: expected the name of an environment variable, not the"
                " secret itself"
            )
        if variable is None and not self.is_loopback:
            raise ConfigError(
                f"real.server.host = {toml_value(self.host)}: can be reached from other machines,"
                " so real.server.token_variable has to name an environment variable with a secret;"
                ' or use host = "127.0.0.1"'
            )
        for argument in self.extra_args:
            name = argument.partition("=")[0]
            if name in OWN_FLAGS:
                raise ConfigError(f"real.server.extra_args: {name} is set by {OWN_FLAGS[name]}")

    @property
    def is_loopback(self) -> bool:
        """Only this machine can reach the servers."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def gpus(self) -> int:
        """GPUs of all servers together."""
        return self.count * self.tensor_parallel
