"""The closed-form engine does exactly what the rules say, step by step (no tolerance)."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from areal_sim.costs.protocol import FS_PER_NS, ServerCost, decode_time_fs, prefill_time_fs
from areal_sim.engine import Engine, Request
from tests.sim.engine_play import Act, Play, Rollout, Script, play_engine, play_reference
from tests.sim.engine_scripts import costs, scripts, times_ns

NS = FS_PER_NS
COST = ServerCost(
    decode_base_fs=10 * NS,
    decode_per_rollout_fs=1 * NS,
    decode_per_kv_token_fs=0,
    prefill_base_fs=5 * NS,
    prefill_per_token_fs=2 * NS,
    prefill_per_token_pair_fs=0,
)


def finishes(play: Play) -> dict[int, int]:
    """When each rollout finished, in nanoseconds."""
    found = [entry for entry in play.log if entry[0] == "finish"]
    return {number: entry[1] for entry in found for number in entry[3]}


def script(*rollouts: Rollout, **changes: Any) -> Script:
    limits: dict[str, Any] = {
        "cost": COST,
        "max_running_rollouts": 9,
        "kv_cache_tokens": 1000,
        "prefill_chunk_tokens": 100,
        "kv_reserve_tokens": 1,
    }
    return Script(rollouts=rollouts, **(limits | changes))


# Worked out by hand; both engines have to agree


def both(story: Script) -> Play:
    play = play_engine(story)
    assert play.log == play_reference(story).log
    return play


def test_one_rollout() -> None:
    play = both(script(Rollout(3, 3, at_ns=0)))
    assert finishes(play) == {0: 11 + 11 + 11}  # prefill 5 + 3 * 2, then two decode steps


def test_decoding_slows_down_with_the_kv_cache() -> None:
    cost = dataclasses.replace(COST, decode_per_kv_token_fs=1 * NS)
    assert finishes(both(script(Rollout(3, 3, at_ns=0), cost=cost))) == {0: 11 + 14 + 15}


def test_a_rollout_of_one_token_finishes_with_its_prefill() -> None:
    assert finishes(both(script(Rollout(3, 1, at_ns=4)))) == {0: 4 + 11}


def test_two_contexts_share_prefill_steps() -> None:
    play = both(script(Rollout(3, 1, at_ns=0), Rollout(3, 2, at_ns=0), prefill_chunk_tokens=4))
    # 4 tokens, then the 2 that are left, then one decode step of one rollout.
    assert finishes(play) == {0: 13, 1: 13 + 9 + 11}


def test_a_later_rollout_waits_for_the_end_of_the_step() -> None:
    play = both(script(Rollout(3, 4, at_ns=0), Rollout(1, 1, at_ns=23)))
    # Steps end at 11, 22, 33; the prefill of the second takes 7 more, then a step for the first.
    assert finishes(play) == {1: 40, 0: 51}


def test_who_comes_at_the_very_end_of_a_step_is_in_time() -> None:
    play = both(script(Rollout(3, 4, at_ns=0), Rollout(1, 1, at_ns=22)))
    assert finishes(play) == {1: 29, 0: 51}


def test_who_comes_at_the_very_end_of_a_prefill_step_joins_the_next() -> None:
    story = script(Rollout(8, 1, at_ns=0), Rollout(1, 1, at_ns=13), prefill_chunk_tokens=4)
    assert finishes(both(story)) == {0: 26, 1: 26 + 7}
    story = script(Rollout(7, 1, at_ns=0), Rollout(1, 1, at_ns=13), prefill_chunk_tokens=4)
    assert finishes(both(story)) == {0: 26, 1: 26}


def test_the_last_admitted_makes_room_and_is_prefilled_again() -> None:
    play = both(script(Rollout(2, 4, at_ns=0), Rollout(2, 4, at_ns=0), kv_cache_tokens=8))
    # 13: both prefilled. 25, 37: two decode steps fill the 8 entries. 48: the first alone is done.
    # Then the other's 5 tokens of context, 4 of them for the second time, yield its last token.
    assert finishes(play) == {0: 48, 1: 48 + 15}
    engine = play.engines[0]
    assert (engine.preemptions, engine.recomputed_tokens) == (1, 4)
    assert engine.recompute_fs == 8 * NS
    assert engine.prefill_fs == (13 + 15 - 8) * NS


def test_a_finish_is_on_a_whole_nanosecond_and_the_wait_for_it_counts() -> None:
    cost = dataclasses.replace(COST, decode_base_fs=10 * NS + 1)
    play = both(script(Rollout(3, 3, at_ns=0), cost=cost))
    assert finishes(play) == {0: 34}
    assert play.engines[0].decode_fs == 23 * NS


def test_holding_keeps_the_kv_cache_and_taking_does_not() -> None:
    held = both(script(Rollout(3, 4, at_ns=0), acts=(Act("hold", 12, after_ns=100),)))
    assert finishes(held) == {0: 22 + 100 + 22}
    taken = both(script(Rollout(3, 4, at_ns=0), acts=(Act("take all", 12, after_ns=100),)))
    # 5 tokens of context yield the third token, one decode step the last.
    assert finishes(taken) == {0: 22 + 100 + 15 + 11}


def test_a_request_that_moved_does_not_finish_where_it_was() -> None:
    rollouts = (Rollout(2, 9, at_ns=0), Rollout(2, 5, at_ns=0), Rollout(2, 9, at_ns=0, server=1))
    take = Act("take", 15, ids=frozenset([1]), to=1)
    play = both(script(*rollouts, acts=(take,), servers=2))
    assert {entry[2] for entry in play.log if entry[0] == "finish" and 1 in entry[3]} == {1}


# Whatever happens


@settings(max_examples=400)
@given(scripts())
def test_the_engine_equals_the_walk(story: Script) -> None:
    both(story)


@settings(max_examples=300)
@given(scripts(kinds=()))
def test_the_engine_equals_the_walk_with_arrivals_alone(story: Script) -> None:
    play = both(story)
    engine = play.engines[0]
    done = finishes(play)
    assert all(number in done for number, r in enumerate(story.rollouts) if r.at_ns is not None)
    assert (engine.kv_tokens, len(engine.waiting), engine.empty) == (0, 0, True)
    assert engine.generated_tokens == sum(story.rollouts[number].total_tokens for number in done)
    busy_fs = engine.decode_fs + engine.prefill_fs + engine.recompute_fs
    assert busy_fs <= max(done.values(), default=0) * NS


@settings(max_examples=60)
@given(scripts(longest=150, max_acts=3))
def test_long_jumps_equal_long_walks(story: Script) -> None:
    both(story)


@settings(max_examples=200)
@given(scripts(servers=3))
def test_servers_that_answer_and_help_each_other(story: Script) -> None:
    both(story)


@settings(max_examples=200)
@given(scripts(servers=2), st.lists(times_ns, max_size=12), st.booleans())
def test_more_wakes_change_nothing(story: Script, nudges_ns: list[int], settle: bool) -> None:
    play = play_engine(story, nudges_ns=nudges_ns, settle=settle)
    assert play.log == play_reference(story).log


@settings(max_examples=200)
@given(scripts(kinds=("take all", "take", "hold", "boundary", "lose"), ample_kv=True))
def test_planning_more_than_once_at_an_instant_changes_nothing(story: Script) -> None:
    play = play_engine(story, plan_often=True)
    assert play.log == play_reference(story).log


# Physics


@given(scripts(kinds=()), costs())
def test_a_faster_server_finishes_nothing_later(story: Script, more: ServerCost) -> None:
    batch = [dataclasses.replace(rollout, at_ns=0) for rollout in story.rollouts]
    fast = dataclasses.replace(story, rollouts=tuple(batch))
    names = [field.name for field in dataclasses.fields(ServerCost)]
    summed = {name: getattr(story.cost, name) + getattr(more, name) for name in names}
    slow = dataclasses.replace(fast, cost=ServerCost(**summed))
    before, after = finishes(play_engine(fast)), finishes(play_engine(slow))
    assert before.keys() == after.keys()
    assert all(before[number] <= after[number] for number in before)


whole_ns = st.integers(0, 5).map(lambda ns: ns * NS)


@given(
    st.builds(
        ServerCost,
        decode_base_fs=st.integers(1, 5).map(lambda ns: ns * NS),
        decode_per_rollout_fs=whole_ns,
        decode_per_kv_token_fs=whole_ns,
        prefill_base_fs=whole_ns,
        prefill_per_token_fs=whole_ns,
        prefill_per_token_pair_fs=whole_ns,
    ),
    st.lists(st.builds(Rollout, st.integers(1, 9), st.integers(2, 20), st.just(0)), min_size=1),
    st.integers(1, 40),
    st.data(),
)
def test_an_interruption_costs_the_prefill_of_what_was_in_flight(
    cost: ServerCost, rollouts: list[Rollout], chunk_tokens: int, data: st.DataObject
) -> None:
    story = script(
        *rollouts,
        cost=cost,
        max_running_rollouts=len(rollouts),
        kv_cache_tokens=10_000,
        prefill_chunk_tokens=chunk_tokens,
    )
    alone = play_engine(story)
    end_ns = max(finishes(alone).values())
    at_ns = data.draw(st.integers(0, end_ns), label="at_ns")
    cut = play_engine(dataclasses.replace(story, acts=(Act("take all", at_ns),)))
    [(_, _, _, progress, _)] = [entry for entry in cut.log if entry[0] == "take all"]
    assume(progress and all(generated for _, generated in progress))

    contexts = [rollouts[number].prompt_tokens + made for number, made in progress]
    resident = [context - 1 for context in contexts]
    saved_fs = decode_time_fs(cost, len(contexts), sum(resident), 1)
    added_fs = sum(prefill_time_fs(cost, step) for step in packed(contexts, chunk_tokens))
    # The prefill yields each rollout's next token: one decode step less.
    assert (max(finishes(cut).values()) - end_ns) * NS == added_fs - saved_fs
    before, after = alone.engines[0], cut.engines[0]
    assert before.decode_fs - after.decode_fs == saved_fs
    assert after.recomputed_tokens == sum(resident)
    base_fs = dataclasses.replace(cost, prefill_base_fs=0)
    assert after.recompute_fs == prefill_time_fs(base_fs, [(tokens, 0) for tokens in resident])


def packed(contexts: list[int], chunk_tokens: int) -> list[list[tuple[int, int]]]:
    """Prefill steps over these contexts: (new, cached) tokens of each chunk."""
    tokens = [(number, at) for number, context in enumerate(contexts) for at in range(context)]
    steps = [tokens[i : i + chunk_tokens] for i in range(0, len(tokens), chunk_tokens)]
    packed_steps = []
    for step in steps:
        ats = {number: [at for n, at in step if n == number] for number, _ in step}
        packed_steps.append([(len(at), at[0]) for at in ats.values()])
    return packed_steps


# Speed, in wakes instead of seconds, and errors


@pytest.mark.parametrize("chunk_tokens", [16, 1000])
def test_an_engine_is_woken_once_per_finish(chunk_tokens: int) -> None:
    cost = ServerCost(
        decode_base_fs=9 * NS + 7,
        decode_per_rollout_fs=NS // 3,
        decode_per_kv_token_fs=NS // 100,
        prefill_base_fs=4 * NS + 3,
        prefill_per_token_fs=NS // 7,
        prefill_per_token_pair_fs=NS // 9,
    )
    rollouts = [
        Rollout(50 + n % 7, 200 + 31 * n % 300, at_ns=0 if n < 20 else None) for n in range(120)
    ]
    story = script(
        *rollouts,
        cost=cost,
        max_running_rollouts=20,
        kv_cache_tokens=10**6,
        prefill_chunk_tokens=chunk_tokens,
    )
    play = both(story)
    instants = {entry[1] for entry in play.log if entry[0] == "finish"}
    assert len(finishes(play)) == 120
    assert play.wakes <= len(instants) + 1


def test_what_is_left_of_a_batch_finishes_in_time() -> None:
    totals = [3, 40, 4, 50, 60, 5, 6, 55, 45, 7, 8, 9]
    taken = frozenset([0, 2, 3])
    for first in range(len(totals)):
        turned = totals[first:] + totals[:first]
        rollouts = [Rollout(1, total, at_ns=0) for total in turned]
        take = Act("take", 40, ids=taken, after_ns=None)
        play = both(script(*rollouts, max_running_rollouts=12, acts=(take,)))
        assert finishes(play).keys() == set(range(len(totals))) - taken


def test_settling_counts_the_steps_of_a_jump() -> None:
    engine = Engine(COST, max_running_rollouts=1, kv_cache_tokens=99, prefill_chunk_tokens=9)
    request = Request(7, 3, 50)
    engine.submit(request, 0)
    engine.plan()
    assert engine.advance(40 * NS) == []
    visible_fs = engine.next_visible_fs()
    assert engine.progress(request) == 1
    engine.settle(40 * NS)
    assert (engine.progress(request), engine.kv_tokens) == (3, 5)  # 11, 22, 33
    assert engine.next_visible_fs() == visible_fs == 50 * 11 * NS


@pytest.mark.parametrize(
    "name",
    ["max_running_rollouts", "kv_cache_tokens", "prefill_chunk_tokens", "kv_reserve_tokens"],
)
def test_a_limit_below_one_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} = 0: must be at least 1$"):
        Engine(COST, **(script().limits() | {name: 0}))


def test_what_never_fits_is_an_error() -> None:
    engine = Engine(COST, max_running_rollouts=1, kv_cache_tokens=9, prefill_chunk_tokens=9)
    with pytest.raises(ValueError, match="rollout 3 needs 10 KV tokens, the server has 9"):
        engine.submit(Request(3, 4, 5), 0)
    with pytest.raises(ValueError, match="rollout 4 has 0 of 0 tokens: nothing to generate"):
        engine.submit(Request(4, 4, 0), 0)
    engine.submit(Request(5, 4, 4), 0)
    assert [request.rollout_id for request in engine.waiting] == [5]
