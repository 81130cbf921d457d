"""One real server for the whole session, and a second one that tests may kill."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
from collections.abc import Iterator

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
def first_lab(
    runner: asyncio.Runner, partner: Partner, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    options = dataclasses.replace(OPTIONS, stream_interval_tokens=4)
    lab = Lab(tmp_path_factory.mktemp("first"), partner, runner, options)
    runner.run(lab.start())
    yield lab
    runner.run(lab.server.stop())


@pytest.fixture(scope="session")
def second_lab(
    runner: asyncio.Runner, partner: Partner, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    options = dataclasses.replace(OPTIONS, stream_interval_tokens=1, health_timeout_s=8)
    lab = Lab(tmp_path_factory.mktemp("second"), partner, runner, options)
    runner.run(lab.start())
    yield lab
    runner.run(lab.server.stop())


@pytest.fixture
def lab(first_lab: Lab) -> Lab:
    """A server that must outlive the test."""
    assert first_lab.host.lost_reason is None
    first_lab.fresh()
    return first_lab


@pytest.fixture
def mortal(second_lab: Lab) -> Lab:
    """A server that a test may kill; it is started again for the next one."""
    second_lab.fresh()
    return second_lab
