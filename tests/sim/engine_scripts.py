"""Random scripts for `engine_play`: small numbers, so that things coincide and collide."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from areal_sim.costs.protocol import FS_PER_NS, ServerCost
from tests.sim.engine_play import Act, Rollout, Script

coefficients = st.one_of(
    st.integers(0, 3).map(lambda ns: ns * FS_PER_NS),  # steps end on whole nanoseconds
    st.integers(0, 4_000_000),
    st.integers(0, 2),  # thousands of steps in a nanosecond
    st.just(0),
)


@st.composite
def costs(draw: st.DrawFn, instant_prefill: bool = True) -> ServerCost:
    names = ("decode_per_rollout_fs", "decode_per_kv_token_fs", "prefill_per_token_fs")
    more = ("prefill_per_token_pair_fs", "prefill_per_rollout_fs")
    drawn = {name: draw(coefficients) for name in (*names, *more)}
    base_fs = draw(coefficients)
    prefill_fs = draw(coefficients)
    return ServerCost(
        decode_base_fs=base_fs if base_fs + drawn["decode_per_rollout_fs"] else 1,
        prefill_base_fs=prefill_fs if instant_prefill else prefill_fs + 1,
        **drawn,
    )


times_ns = st.one_of(st.integers(0, 12), st.integers(0, 60), st.integers(0, 300))


@st.composite
def scripts(
    draw: st.DrawFn,
    servers: int = 1,
    kinds: tuple[Any, ...] = ("take all", "take", "hold", "boundary", "lose", "drain", "probe"),
    longest: int = 9,
    ample_kv: bool = False,
    max_acts: int = 5,
) -> Script:
    where = st.integers(0, servers - 1)
    rollouts = draw(
        st.lists(
            st.builds(
                Rollout,
                prompt_tokens=st.integers(1, longest),
                total_tokens=st.integers(1, longest),
                at_ns=st.one_of(times_ns, st.just(0), st.none()),
                server=where,
            ),
            min_size=1,
            max_size=9,
        )
    )
    acts = draw(
        st.lists(
            st.builds(
                Act,
                kind=st.sampled_from(kinds),
                at_ns=times_ns,
                server=where,
                ids=st.frozensets(st.integers(0, len(rollouts) - 1), max_size=4),
                after_ns=st.one_of(st.just(0), st.integers(0, 30), st.none()),
                to=where,
            ),
            max_size=max_acts,
        )
        if kinds
        else st.just([])
    )
    reserve = draw(st.integers(1, 3))
    largest = max(r.prompt_tokens + r.total_tokens for r in rollouts)
    spare = 100 * longest if ample_kv else draw(st.integers(0, 4 * longest))
    return Script(
        cost=draw(costs(instant_prefill=servers == 1)),
        max_running_rollouts=draw(st.integers(1, 6)),
        kv_cache_tokens=largest + reserve + spare,
        prefill_chunk_tokens=draw(st.one_of(st.integers(1, 4), st.integers(1, 3 * longest))),
        kv_reserve_tokens=reserve,
        rollouts=tuple(rollouts),
        acts=tuple(acts),
        servers=servers,
        answer_shift=draw(where),
    )
