"""One cluster for the tests that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.real.slurm.cluster import Cluster, cluster, left_behind, missing


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    reason = missing()
    if reason:
        pytest.skip(reason)
    with cluster() as made:
        yield made
    assert left_behind(made.folder) == []
