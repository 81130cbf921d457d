"""One real server for the whole session, and a second one that tests may kill."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
from collections.abc import Coroutine, Iterator

import pytest

from tests.real.serving.lab import OPTIONS, Lab, Partner


@pytest.fixture(scope="session")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="session")
def partner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Partner]:
    for name in ("sglang", "transformers"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    partner = Partner(tmp_path_factory.mktemp("models"))
    yield partner
    partner.close()


@pytest.fixture(scope="session")
def labs(
    runner: asyncio.Runner, partner: Partner, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Lab, Lab]]:
    """Two servers, started at once."""
    options = [
        dataclasses.replace(OPTIONS, stream_interval_tokens=4),
        dataclasses.replace(OPTIONS, stream_interval_tokens=1, health_timeout_s=8),
    ]
    first, second = (
        Lab(tmp_path_factory.mktemp("server"), partner, runner, chosen) for chosen in options
    )

    async def both(*work: Coroutine[None, None, None]) -> None:
        await asyncio.gather(*work)

    runner.run(both(first.start(), second.start()))
    yield first, second
    runner.run(both(first.server.stop(), second.server.stop()))


@pytest.fixture
def lab(labs: tuple[Lab, Lab]) -> Lab:
    """A server that must outlive the test."""
    lab = labs[0]
    assert lab.host.lost_reason is None
    lab.fresh()
    return lab


@pytest.fixture
def mortal(labs: tuple[Lab, Lab]) -> Lab:
    """A server that a test may kill; it is started again for the next one."""
    labs[1].fresh()
    return labs[1]
