"""One real server for the attacks on it."""

from __future__ import annotations

import asyncio
import importlib.util
import secrets
from collections.abc import Iterator

import pytest

from areal_real.serving.launch import start_server
from areal_real.serving.options import ServerOptions
from areal_real.tasks.model import write_model
from tests.real.security.attacks import TOKEN_CHARACTERS, Target


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server as a run starts it."""
    for name in ("sglang", "transformers"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    folder = tmp_path_factory.mktemp("security")
    write_model(folder / "model", vocab_size=32, eos_id=1, seed=0)
    options = ServerOptions(
        max_running_rollouts=8,
        kv_cache_tokens=8192,
        start_timeout_s=300,
        api_token=secrets.token_hex(TOKEN_CHARACTERS // 2),
    )
    with asyncio.Runner() as runner:
        server = runner.run(
            start_server(options, folder / "model", weight_version=0, log=folder / "server.log")
        )
        yield Target(server, options.api_token)
        runner.run(server.stop())
