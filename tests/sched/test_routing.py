"""Routing: the least loaded server, always, and servers in turn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from areal_sched.ids import ServerId
from areal_sched.routing import CountIndex, LoadIndex, RoundRobin, router
from tests.sched.bench import Bench, interrupted, joined, lost, resume, start

operations = st.lists(
    st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(0, 40))), max_size=400
)


@pytest.mark.parametrize("cls", [LoadIndex, CountIndex])
@given(operations=operations, queries=st.integers(1, 60))
def test_the_index_agrees_with_a_scan(
    cls: type[LoadIndex] | type[CountIndex],
    operations: list[tuple[int, int | None]],
    queries: int,
) -> None:
    """None stands for the loss of the server; asked only now and then, for stale entries."""
    index = cls()
    loads: dict[int, int] = {}
    assert index.least() is None
    for count, (server_id, load) in enumerate(operations):
        if load is None:
            if server_id in loads:
                del loads[server_id]
                index.remove(ServerId(server_id))
        else:
            loads[server_id] = load
            index.update(ServerId(server_id), load)
        if count % queries == 0:
            assert index.least() == min(loads, key=lambda s: (loads[s], s), default=None)
    assert index.least() == min(loads, key=lambda s: (loads[s], s), default=None)


@pytest.mark.parametrize("cls", [LoadIndex, CountIndex])
def test_a_server_that_comes_back_is_not_taken_for_its_former_self(
    cls: type[LoadIndex] | type[CountIndex],
) -> None:
    index = cls()
    index.update(ServerId(0), 0)
    index.update(ServerId(1), 3)
    index.remove(ServerId(0))
    assert index.least() == 1
    index.update(ServerId(0), 5)
    assert index.least() == 1


def test_round_robin_goes_by_id_and_skips_the_lost() -> None:
    bench = Bench()
    turn = RoundRobin()
    assert turn(bench.state) is None
    for server_id in (2, 0, 1):
        bench(joined(server_id))
    assert [turn(bench.state) for _ in range(4)] == [0, 1, 2, 0]
    bench(lost(1))
    assert [turn(bench.state) for _ in range(3)] == [2, 0, 2]
    bench(lost(2))
    assert turn(bench.state) == 0


def test_load_counts_rollouts_and_kv_counts_tokens() -> None:
    """Server 0 has two rollouts of a short prompt, server 1 one with a long answer."""
    bench = Bench().cluster(servers=2, groups=2)
    bench.do(start(0, 0, 1, server_id=0), start(1, 2, server_id=1))
    assert router("least_loaded")(bench.state) == 1
    assert router("least_kv")(bench.state) == 1
    bench(interrupted(1, (2, 30)), resume(1, 2))
    assert router("least_loaded")(bench.state) == 1
    assert router("least_kv")(bench.state) == 0
