"""Packing: exactness, equality with the plain algorithms, proven bounds, errors."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Sequence
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from areal_sched.packing import (
    Balancer,
    OversizedSequence,
    Packer,
    PackingError,
    algorithm_1,
    first_fit_decreasing,
    karmarkar_karp,
    longest_processing_time,
    pack,
    pack_equally,
    padded_static,
    padded_tokens,
)
from benchmarks import packing as benchmark
from benchmarks import reference_packing as reference
from tests.sched.packing_cases import (
    ANY_FIT,
    BALANCERS,
    PACKERS,
    PLAIN,
    Case,
    packings,
)

# --- micro-batches -----------------------------------------------------------------------------


def test_algorithm_1_by_hand() -> None:
    # 6 opens; 5 cannot join (11 > 10) and opens; 2 joins the first (tie), 2 the second (1 < 2);
    # the next 1 ties at two each and takes the first, whose room is then 1; the last 1 the second.
    assert algorithm_1([6, 5, 2, 2, 1, 1], 10) == [[0, 2, 4], [1, 3, 5]]
    # First fit fills the first to the brim instead.
    assert first_fit_decreasing([6, 5, 2, 2, 1, 1], 10) == [[0, 2, 3], [1, 4, 5]]


def test_fewest_sequences_not_least_load_decides() -> None:
    # After 8 and 4, 4 the loads are 8 and 8; the first holds one sequence and takes the 2.
    assert algorithm_1([4, 8, 4, 2], 10) == [[1, 3], [0, 2]]
    # Here the single one is fuller than the pair, and still takes the 1.
    assert algorithm_1([9, 3, 3, 1], 10) == [[0, 3], [1, 2]]


def test_a_micro_batch_too_full_for_one_takes_a_smaller_one_later() -> None:
    assert algorithm_1([7, 5, 3], 10) == [[0, 2], [1]]


def test_k_min_opens_micro_batches_first() -> None:
    assert algorithm_1([1, 1, 1, 1], 10, 3) == [[0, 3], [1], [2]]
    assert algorithm_1([1, 1], 10, 3) == [[0], [1]]


@pytest.mark.parametrize("packer", ANY_FIT)
@given(case=packings())
def test_equal_to_the_plain_algorithm(packer: Packer, case: Case) -> None:
    assert packer(*case) == PLAIN[packer](*case)


@pytest.mark.parametrize("packer", PACKERS)
@given(case=packings())
def test_every_sequence_once_and_never_over_capacity(packer: Packer, case: Case) -> None:
    sizes, capacity, k_min = case
    before = list(sizes)
    batches = packer(sizes, capacity, k_min)
    assert sizes == before
    assert sorted(i for batch in batches for i in batch) == list(range(len(sizes)))
    assert all(batches)
    assert all(sum(sizes[i] for i in batch) <= capacity for batch in batches)
    assert len(batches) >= min(k_min, len(sizes))
    assert batches == packer(tuple(sizes), capacity, k_min)


@pytest.mark.parametrize("packer", ANY_FIT)
@given(case=packings())
def test_number_of_micro_batches_is_within_the_proven_bound(packer: Packer, case: Case) -> None:
    sizes, capacity, k_min = case
    bound = -(-2 * sum(sizes) // capacity)
    assert len(packer(sizes, capacity, k_min)) <= max(min(k_min, len(sizes)), bound)


@given(
    st.sampled_from([6, 10, 24, 60]).flatmap(
        lambda capacity: st.tuples(
            st.lists(st.integers(1, capacity), min_size=1, max_size=9), st.just(capacity)
        )
    )
)
def test_against_the_exhaustive_optimum(case: tuple[list[int], int]) -> None:
    sizes, capacity = case
    optimum = reference.fewest_micro_batches(sizes, capacity)
    assert 9 * len(first_fit_decreasing(sizes, capacity)) <= 11 * optimum + 6
    assert optimum <= len(algorithm_1(sizes, capacity)) <= 2 * optimum


@pytest.mark.parametrize("packer", ANY_FIT)
@given(case=packings(), data=st.data())
def test_order_of_input_and_unit_do_not_matter(
    packer: Packer, case: Case, data: st.DataObject
) -> None:
    sizes, capacity, k_min = case
    batches = packer(sizes, capacity, k_min)
    unit = 10**18  # costs in FLOPs are large
    assert packer([size * unit for size in sizes], capacity * unit, k_min) == batches
    shuffled = data.draw(st.permutations(sizes))
    again = packer(shuffled, capacity, k_min)
    assert [[shuffled[i] for i in batch] for batch in again] == [
        [sizes[i] for i in batch] for batch in batches
    ]


def test_padded_static_keeps_the_order_and_pays_for_padding() -> None:
    sizes = [5, 1, 2, 8, 3, 3, 4]
    batches = padded_static(sizes, 24)
    assert batches == [[0, 1, 2], [3, 4], [5, 6]]  # 24 // 8 = 3 each at most
    assert padded_tokens(sizes, batches) == [15, 16, 8]
    assert padded_tokens(sizes, batches, pad_to_tokens=8) == [24, 16, 16]
    assert padded_static(sizes, 24, pad_to_tokens=12) == [[0, 1], [2, 3], [4, 5], [6]]
    assert padded_tokens(sizes, [[], [6]]) == [0, 4]
    # The paper's baseline: 32 micro-batches, whatever the lengths.
    assert [len(b) for b in padded_static([100] * 128, 10**9, 32)] == [4] * 32


@given(case=packings(), data=st.data())
def test_padded_static_padded_size_is_within_the_capacity(case: Case, data: st.DataObject) -> None:
    sizes, capacity, k_min = case
    longest = max(sizes, default=1)
    pad_to_tokens = data.draw(st.none() | st.integers(longest, capacity))
    batches = padded_static(sizes, capacity, k_min, pad_to_tokens=pad_to_tokens)
    assert [i for batch in batches for i in batch] == list(range(len(sizes)))
    padded = padded_tokens(sizes, batches, pad_to_tokens or longest)
    assert all(tokens <= capacity for tokens in padded)
    counts = [len(batch) for batch in batches]
    assert counts == sorted(counts, reverse=True)
    assert not counts or counts[0] - counts[-1] <= 1


# --- one step ----------------------------------------------------------------------------------


@given(
    case=packings(),
    ranks=st.integers(1, 5),
    minibatches=st.integers(1, 5),
    algorithm=st.sampled_from(PACKERS),
    balance=st.sampled_from(BALANCERS),
    equal_counts=st.booleans(),
    equal_micro_batches=st.booleans(),
    data=st.data(),
)
def test_step_holds_every_sequence_once_in_its_minibatch(
    case: Case,
    ranks: int,
    minibatches: int,
    algorithm: Packer,
    balance: Balancer,
    equal_counts: bool,
    equal_micro_batches: bool,
    data: st.DataObject,
) -> None:
    sizes, capacity, k_min = case
    costs = data.draw(
        st.none() | st.lists(st.integers(1, 99), min_size=len(sizes), max_size=len(sizes))
    )
    packed = pack(
        sizes,
        capacity=capacity,
        ranks=ranks,
        minibatches=minibatches,
        algorithm=algorithm,
        balance=balance,
        costs=costs,
        k_min=k_min,
        equal_counts=equal_counts,
        equal_micro_batches=equal_micro_batches,
    )
    assert len(packed) == min(minibatches, len(sizes))
    start = 0
    lengths = []
    for by_rank in packed:
        assert len(by_rank) == ranks
        shares = [[i for batch in batches for i in batch] for batches in by_rank]
        held = sorted(i for share in shares for i in share)
        assert held == list(range(start, start + len(held)))
        start += len(held)
        lengths.append(len(held))
        for batches, share in zip(by_rank, shares, strict=True):
            assert len(batches) >= min(k_min, len(share))
            assert all(sum(sizes[i] for i in batch) <= capacity for batch in batches)
            assert equal_micro_batches or all(batches)
        if equal_micro_batches:
            assert len({len(batches) for batches in by_rank}) == 1
        if equal_counts:
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert start == len(sizes)
    assert not lengths or max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("algorithm", ANY_FIT)
@given(case=packings(), ranks=st.integers(1, 5), minibatches=st.integers(1, 5))
def test_step_equals_the_plain_step(
    algorithm: Packer, case: Case, ranks: int, minibatches: int
) -> None:
    sizes, capacity, _ = case
    assert pack(
        sizes, capacity=capacity, ranks=ranks, minibatches=minibatches, algorithm=algorithm
    ) == reference.pack(sizes, capacity, ranks, minibatches, PLAIN[algorithm])


def test_step_balances_by_cost_and_packs_by_size() -> None:
    # One sequence costs as much as three: it is alone on its rank, though capacity is in tokens.
    packed = pack([4, 4, 4, 4], capacity=8, ranks=2, costs=[3, 1, 1, 1])
    assert packed == [[[[0]], [[1, 2], [3]]]]
    evened = pack([4, 4, 4, 4], capacity=8, ranks=2, costs=[3, 1, 1, 1], equal_micro_batches=True)
    assert evened == [[[[0], []], [[1, 2], [3]]]]


def test_equal_micro_batches_go_on_until_all_ranks_agree() -> None:
    asked: list[int] = []

    def in_threes(sizes: Sequence[int], capacity: int, k_min: int) -> list[list[int]]:
        asked.append(k_min)
        return algorithm_1(sizes, capacity, -(-k_min // 3) * 3 if k_min > 1 else 1)

    packed = pack_equally([[1] * 8, [6] * 5 + [1] * 2, [9] * 4], 10, algorithm=in_threes)
    # At first 1, 5 and 4. Asked for 5, the first rank answers with 6, so the second is asked for
    # 6. The third has only 4 sequences.
    assert asked == [1, 1, 1, 5, 6]
    assert [len(batches) for batches in packed] == [6, 6, 6]
    assert packed[2] == [[0], [1], [2], [3], [], []]


def test_step_uses_a_packer_with_its_own_options() -> None:
    static = partial(padded_static, pad_to_tokens=5)
    assert pack([1, 2, 3, 4], capacity=10, ranks=1, algorithm=static) == [[[[0, 1], [2, 3]]]]


def test_result_is_the_same_on_every_machine() -> None:
    # Lengths from a fixed recurrence. The digest changes only if a tie is settled differently.
    state, sizes = 1, []
    for _ in range(2048):
        state = state * 6364136223846793005 % 2**64
        sizes.append(1 + (state >> 40) % 28672 * ((state >> 20) % 97) // 97)
    steps = [
        pack(sizes, capacity=32768, ranks=16, minibatches=4, balance=b, equal_micro_batches=True)
        for b in BALANCERS
    ]
    digest = hashlib.sha256(json.dumps(steps).encode()).hexdigest()
    assert digest[:16] == "6c5de1fafd473c18"


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("packer", PACKERS)
def test_oversized_sequence_is_named(packer: Packer) -> None:
    with pytest.raises(OversizedSequence, match=r"^sequence 2 has size 11, over .* capacity 10$"):
        packer([1, 10, 11, 12], 10, 1)
    with pytest.raises(OversizedSequence) as caught:
        pack([1, 10, 11, 12], capacity=10, ranks=2, minibatches=2)
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.index, error.size, error.capacity) == (2, 11, 10)
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("packer", PACKERS)
def test_no_sequences_no_micro_batches(packer: Packer) -> None:
    assert packer([], 10, 1) == packer([], 10, 4) == []


def test_no_sequences_no_minibatches() -> None:
    assert pack([], capacity=10, ranks=3, minibatches=4, equal_micro_batches=True) == []
    assert karmarkar_karp([], 2) == longest_processing_time([], 2, True) == [[], []]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: algorithm_1([3, 0], 10), r"sizes\[1\] is 0, must be at least 1"),
        (lambda: first_fit_decreasing([3, -4], 10), r"sizes\[1\] is -4, must be"),
        (lambda: algorithm_1([3, 1.5], 10), r"sizes\[1\] is 1\.5, not an integer"),  # type: ignore[list-item]
        (lambda: algorithm_1([3], 0), r"capacity is 0"),
        (lambda: algorithm_1([3], 8.0), r"capacity is 8\.0, not an integer"),  # type: ignore[arg-type]
        (lambda: algorithm_1([], -1), r"capacity is -1"),
        (lambda: algorithm_1([3], 10, 0), r"k_min is 0"),
        (lambda: padded_static([3], 10, 0), r"k_min is 0"),
        (lambda: padded_static([3], 10, pad_to_tokens=11), r"pad_to_tokens is 11, over .* 10"),
        (lambda: padded_static([2, 5], 10, pad_to_tokens=4), r"sizes\[1\] is 5, longer than .* 4"),
        (lambda: padded_tokens([3], [[0]], 0), r"pad_to_tokens is 0"),
        (lambda: karmarkar_karp([3, 0], 2), r"costs\[1\] is 0"),
        (lambda: karmarkar_karp([3], 0), r"ranks is 0"),
        (lambda: longest_processing_time([3], 0), r"ranks is 0"),
        (lambda: pack([3], capacity=10, ranks=0), r"ranks is 0"),
        (lambda: pack([3], capacity=10, ranks=1, minibatches=0), r"minibatches is 0"),
        (lambda: pack([], capacity=10, ranks=1, k_min=0), r"k_min is 0"),
        (lambda: pack([3], capacity=10, ranks=1, costs=[1, 2]), r"costs has 2 values for 1 sizes"),
        (lambda: pack([3], capacity=10, ranks=1, costs=[0]), r"costs\[0\] is 0"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(PackingError, match=message):
        call()


# --- the benchmark -----------------------------------------------------------------------------


def test_the_benchmark_runs_and_prints_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["--sequences", "96", "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    for name in ("algorithm_1", "first_fit_decreasing", "karmarkar_karp", "pack"):
        assert name in out
