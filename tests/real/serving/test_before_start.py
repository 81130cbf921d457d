"""A server that a run takes in before it is started, as one that joins it later."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from areal_real.serving.options import Sampling, ServerOptions
from areal_real.serving.server import ManagedServer
from tests.real.serving.lab import RecordingHost, Supply


def test_it_is_down_and_not_idle_until_it_is_started(tmp_path: Path) -> None:
    async def life() -> RecordingHost:
        host = RecordingHost()
        server = ManagedServer(
            1, host, ServerOptions(), Sampling(), Supply(None), log_folder=tmp_path
        )
        origin_ns = time.monotonic_ns() - 1_000
        server.begin(origin_ns, 0, 3)
        server.submit(1, [1], 1)
        server.interrupt([1])
        server.abort([1])
        server.load(4, "interrupt")
        server.close_spans(time.monotonic_ns() - origin_ns)
        await server.stop()
        return host

    host = asyncio.run(life())
    assert host.reports == []
    assert [(span.activity, span.start_ns) for span in host.spans] == [("down", 0)]
