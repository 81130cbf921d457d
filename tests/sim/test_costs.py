import dataclasses
import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from areal_sim.costs import (
    Factors,
    Roofline,
    ServerCost,
    TrainerCost,
    decode_time_fs,
    prefill_time_fs,
    steps_within_fs,
    train_ranks_s,
)
from areal_sim.costs.protocol import FS_PER_S
from areal_sim.hardware import ServerLayout, TrainerLayout, gpu, paper_cluster
from areal_sim.models import load_model

NO_OVERHEAD = Factors.from_mapping({"server_step_overhead_s": 0, "server_rollout_overhead_s": 0})

coefficients = st.integers(0, 10**13)
servers = st.builds(
    ServerCost,
    decode_base_fs=st.integers(1, 10**13),
    decode_per_rollout_fs=coefficients,
    decode_per_kv_token_fs=st.one_of(st.just(0), coefficients),
    prefill_base_fs=coefficients,
    prefill_per_token_fs=coefficients,
    prefill_per_token_pair_fs=coefficients,
)


def roofline(model: str = "7b", tp: int = 1, **changes: Any) -> Roofline:
    return dataclasses.replace(
        Roofline(
            cluster=paper_cluster(16),
            model=load_model(model),
            server_layout=ServerLayout(tensor_parallel=tp),
            trainer_layout=TrainerLayout(pipeline_parallel=4, data_parallel=8),
        ),
        **changes,
    )


# The closed form


@given(servers, st.integers(1, 300), st.integers(0, 10**6), st.integers(0, 60))
def test_the_closed_form_is_the_sum_over_steps(cost: ServerCost, n: int, kv: int, k: int) -> None:
    total = 0
    for step in range(k):
        total += (
            cost.decode_base_fs
            + cost.decode_per_rollout_fs * n
            + cost.decode_per_kv_token_fs * (kv + step * n)
        )
    assert decode_time_fs(cost, n, kv, k) == total


@given(servers, st.integers(1, 300), st.integers(0, 10**6), st.integers(0, 10**6), st.data())
def test_the_inverse_is_exact(
    cost: ServerCost, n: int, kv: int, k: int, data: st.DataObject
) -> None:
    start, end = decode_time_fs(cost, n, kv, k), decode_time_fs(cost, n, kv, k + 1)
    assert steps_within_fs(cost, n, kv, start) == k
    assert steps_within_fs(cost, n, kv, end - 1) == k
    assert steps_within_fs(cost, n, kv, data.draw(st.integers(start, end - 1))) == k


@given(servers, st.integers(1, 8), st.integers(0, 100), st.integers(0, 10**15))
def test_the_inverse_equals_the_loop(cost: ServerCost, n: int, kv: int, budget: int) -> None:
    steps, now, held = 0, 0, kv
    while steps < 200:
        now += (
            cost.decode_base_fs
            + cost.decode_per_rollout_fs * n
            + cost.decode_per_kv_token_fs * held
        )
        if now > budget:
            break
        steps, held = steps + 1, held + n
    assert min(steps_within_fs(cost, n, kv, budget), 200) == steps


@given(servers, st.lists(st.integers(1, 500), min_size=1, max_size=6))
def test_chunks_of_a_prompt_add_up_to_the_prompt(cost: ServerCost, chunks: list[int]) -> None:
    whole, held, parts = prefill_time_fs(cost, [(sum(chunks), 0)]), 0, 0
    for chunk in chunks:
        parts += prefill_time_fs(cost, [(chunk, held)])
        held += chunk
    assert parts == whole + (len(chunks) - 1) * cost.prefill_base_fs


def test_prefill_behind_a_prefix_by_hand() -> None:
    cost = ServerCost(
        decode_base_fs=1,
        decode_per_rollout_fs=0,
        decode_per_kv_token_fs=0,
        prefill_base_fs=1000,
        prefill_per_token_fs=10,
        prefill_per_token_pair_fs=1,
    )
    # three tokens behind five see 6 + 7 + 8 tokens; two on their own see 1 + 2
    assert prefill_time_fs(cost, [(3, 5), (2, 0)]) == 1000 + 50 + 21 + 3


def test_bad_arguments_are_refused() -> None:
    cost = roofline().server()
    for call in (
        lambda: decode_time_fs(cost, 0, 0, 1),
        lambda: decode_time_fs(cost, 1, -1, 1),
        lambda: decode_time_fs(cost, 1, 0, -1),
        lambda: steps_within_fs(cost, 1, 0, -1),
        lambda: prefill_time_fs(cost, [(0, 3)]),
        lambda: train_ranks_s(roofline().trainer(), [[1]], []),
    ):
        with pytest.raises(ValueError, match=r"\d"):
            call()
    with pytest.raises(ValueError, match=r"decode_per_rollout_fs = 1\.5: expected an integer"):
        dataclasses.replace(cost, decode_per_rollout_fs=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="decoding takes no time"):
        dataclasses.replace(cost, decode_base_fs=0, decode_per_rollout_fs=0)
    with pytest.raises(ValueError, match="update_base_s = nan: expected a finite number"):
        dataclasses.replace(roofline().trainer(), update_base_s=math.nan)


# The trainer


def trainer_cost(stages: int) -> TrainerCost:
    return TrainerCost(
        update_base_s=1.0,
        update_per_token_s=0.5,
        update_per_token_pair_s=0.25,
        forward_base_s=0.5,
        forward_per_token_s=0.125,
        forward_per_token_pair_s=0.0625,
        pipeline_stages=stages,
        optimizer_s=0.0,
        step_overhead_s=0.0,
    )


def rank_s(
    cost: TrainerCost, tokens: list[int], squares: list[int], forward_only: bool = False
) -> float:
    [time_s], _ = train_ranks_s(cost, [tokens], [squares], forward_only)
    return time_s


def test_a_ranks_time_by_hand() -> None:
    # micro-batches of lengths {2, 2} and {4}
    tokens, squares = [4, 4], [8, 16]
    first, second = 1 + 2 + 2, 1 + 2 + 4
    assert rank_s(trainer_cost(1), tokens, squares) == first + second
    assert rank_s(trainer_cost(1), tokens, squares, forward_only=True) == 1 + 1 + 1.5
    assert rank_s(trainer_cost(3), [], []) == 0.0
    # Forward alone: the longest slot once more for each of the other stages.
    a, b = 0.5 + 0.5 + 0.5, 0.5 + 0.5 + 1.0
    assert rank_s(trainer_cost(3), tokens, squares, forward_only=True) == a + b + 2 * max(a, b)


@given(st.integers(1, 30), st.integers(2, 8), st.integers(1, 1000))
def test_equal_micro_batches_fill_and_drain_like_1f1b(m: int, stages: int, tokens: int) -> None:
    cost = trainer_cost(stages)
    slot = rank_s(trainer_cost(1), [tokens], [tokens * tokens])
    # The last stage starts after stages - 1 slots and then works through all m.
    assert rank_s(cost, [tokens] * m, [tokens * tokens] * m) == pytest.approx(
        (m + stages - 1) * slot
    )


def test_update_flops_by_hand() -> None:
    shape = load_model("7b")
    factors = Factors.from_mapping({"micro_batch_overhead_s": 0, "training_efficiency": 0.5})
    layout = TrainerLayout(tensor_parallel=2, pipeline_parallel=2)
    cost = roofline(factors=factors, trainer_layout=layout).trainer()
    full = 4 * 989e12 * 0.5
    # Two GPUs a stage, two stages: with a full pipeline every micro-batch costs a stage's time.
    busy = rank_s(dataclasses.replace(cost, pipeline_stages=1), [3000], [5_000_000])
    flops = shape.forward_flops(1000) + shape.forward_flops(2000)
    again = shape.forward_flops(1000, lm_head=False) + shape.forward_flops(2000, lm_head=False)
    assert busy == pytest.approx((3 * flops + again) / full)

    kept = dataclasses.replace(layout, recompute=False)
    cost = roofline(factors=factors, trainer_layout=kept).trainer()
    busy = rank_s(dataclasses.replace(cost, pipeline_stages=1), [3000], [5_000_000])
    assert busy == pytest.approx(3 * flops / full)
    assert cost.pipeline_stages == 2


# Physics of the roofline


def test_more_bandwidth_and_more_compute_are_never_slower() -> None:
    base = roofline(tp=4)
    slow, slow_trainer = base.server(), base.trainer()
    for field in ("hbm_bytes_per_s", "dense_flops", "nvlink_bytes_per_s"):
        card = dataclasses.replace(base.cluster.gpu, **{field: 2 * getattr(gpu("H800"), field)})
        better = dataclasses.replace(base, cluster=dataclasses.replace(base.cluster, gpu=card))
        old, new = dataclasses.astuple(slow), dataclasses.astuple(better.server())
        assert all(b <= a for a, b in zip(old, new, strict=True))
        assert new != old
        old_t, new_t = dataclasses.astuple(slow_trainer), dataclasses.astuple(better.trainer())
        assert all(b <= a for a, b in zip(old_t, new_t, strict=True))


def test_tensor_parallel_lowers_every_decode_term_of_a_large_model() -> None:
    one, two, four, eight = (
        roofline("32b", tp, factors=NO_OVERHEAD).server() for tp in (1, 2, 4, 8)
    )
    for less, more in ((one, two), (two, four), (four, eight)):
        assert more.decode_base_fs < less.decode_base_fs
        assert more.decode_per_kv_token_fs < less.decode_per_kv_token_fs
        # less than ideally: latency and all-reduces stay
        assert more.decode_base_fs > less.decode_base_fs / 2
    assert eight.prefill_per_token_pair_fs == pytest.approx(one.prefill_per_token_pair_fs / 8)


def test_larger_models_cost_more_in_everything() -> None:
    rooflines = [roofline(name) for name in ("0.5b", "1.5b", "7b", "14b", "32b")]
    for small, large in itertools.pairwise(rooflines):
        for of in (Roofline.server, Roofline.trainer):
            pairs = zip(dataclasses.astuple(of(small)), dataclasses.astuple(of(large)), strict=True)
            assert all(a <= b for a, b in pairs)
        assert small.weight_publish_s() < large.weight_publish_s()
        assert small.weight_load_s() < large.weight_load_s()
        assert small.switch_s("train") < large.switch_s("train")


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Factors)])
def test_every_factor_matters_and_in_the_right_direction(field: str) -> None:
    """A better efficiency or rate, or a lower overhead, speeds something up and slows nothing."""

    def everything(factors: Factors) -> list[float]:
        disk = roofline(tp=4, servers=512, factors=factors)
        few = dataclasses.replace(disk, servers=1)
        wire = dataclasses.replace(disk, weight_transfer="collective")
        slow_net = dataclasses.replace(
            wire, cluster=dataclasses.replace(wire.cluster, network_bytes_per_s_per_node=1e10)
        )
        times: list[float] = [
            *dataclasses.astuple(disk.server()),
            *dataclasses.astuple(disk.trainer()),
            disk.switch_s("train"),
        ]
        for provider in (disk, few, wire, slow_net):
            times += [provider.weight_publish_s(), provider.weight_load_s()]
        return times

    # A factor that is off by default is looked at where it is on.
    value = getattr(Factors(), field) or 1e-3
    higher_is_better = "efficiency" in field or field.endswith("bytes_per_s")
    better = value * 1.05 if higher_is_better else value * 0.95
    before = everything(Factors.from_mapping({field: value}))
    after = everything(Factors.from_mapping({field: better}))
    assert all(b <= a for a, b in zip(before, after, strict=True))
    assert any(b < a for a, b in zip(before, after, strict=True))


def test_weight_transfer_by_hand() -> None:
    size = load_model("7b").weight_bytes
    factors = Factors.from_mapping(
        {
            "weight_publish_overhead_s": 0,
            "weight_load_overhead_s": 0,
            "disk_write_bytes_per_s": 1e9,
            "disk_read_bytes_per_s": 2e9,
            "disk_read_total_bytes_per_s": 16e9,
            "broadcast_bytes_per_s": 5e9,
            "collective_efficiency": 0.5,
        }
    )
    disk = roofline(factors=factors)
    gather = size * 3 / 4 / (200e9 * 0.5)  # four pipeline stages in one node
    assert disk.weight_publish_s() == pytest.approx(gather + size / 1e9)
    assert disk.weight_load_s() == pytest.approx(size / 2e9)
    # 128 one-GPU servers are 16 nodes, which share 16 GB/s
    many = dataclasses.replace(disk, servers=128)
    assert many.weight_load_s() == pytest.approx(size / 1e9)
    wire = dataclasses.replace(disk, weight_transfer="collective")
    assert wire.weight_publish_s() == pytest.approx(gather)
    assert wire.weight_load_s() == pytest.approx(size / 5e9)


def test_the_optimizer_step_by_hand() -> None:
    factors = Factors.from_mapping(
        {
            "optimizer_overhead_s": 0,
            "collective_efficiency": 0.5,
            "optimizer_bandwidth_efficiency": 0.5,
        }
    )

    def seconds(tp: int, pp: int, dp: int) -> float:
        layout = TrainerLayout(tensor_parallel=tp, pipeline_parallel=pp, data_parallel=dp)
        return roofline(factors=factors, trainer_layout=layout).trainer().optimizer_s

    parameters = load_model("7b").parameters
    # fp32 gradients and fp16 parameters cross the link; Adam moves 30 bytes a parameter
    adam = parameters / 16 * 30 / (3.35e12 * 0.5)
    wire = parameters / 4 * 6 * 3 / 4
    assert seconds(1, 4, 4) == pytest.approx(wire / (200e9 * 0.5) + adam)
    assert seconds(2, 2, 4) == pytest.approx(wire / (200e9 * 0.5) + adam)  # 8 ranks, one node
    adam, wire = adam * 2 / 3, parameters / 4 * 6 * 5 / 6
    assert seconds(2, 2, 6) == pytest.approx(wire / (50e9 * 0.5) + adam)  # 12 ranks, two nodes


def test_decode_and_prefill_by_hand() -> None:
    shape, factors = load_model("7b"), Factors()
    cost = roofline(factors=NO_OVERHEAD).server()
    read = 2 * (shape.parameters - 152_064 * 3584) / (3.35e12 * factors.decode_bandwidth_efficiency)
    assert cost.decode_base_fs / FS_PER_S == pytest.approx(read + 28 * 26e-6)
    per_token = 57_344 / (3.35e12 * factors.decode_kv_bandwidth_efficiency)
    assert cost.decode_per_kv_token_fs / FS_PER_S == pytest.approx(per_token)
    # A prompt of 4,000 tokens: its forward FLOPs without the LM head, and the step's base.
    flops = shape.forward_flops(4000, lm_head=False)
    seconds = (prefill_time_fs(cost, [(4000, 0)]) - cost.prefill_base_fs) / FS_PER_S
    assert seconds == pytest.approx(flops / (989e12 * factors.prefill_efficiency), rel=1e-4)


def test_switching_needs_a_known_phase() -> None:
    assert roofline().switch_s("train") == roofline().switch_s("generate") > 1.0
    with pytest.raises(ValueError, match="switch to 'rest': expected 'generate' or 'train'"):
        roofline().switch_s("rest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weight_transfer = 'pigeon'"):
        roofline(weight_transfer="pigeon")


# Factors


def test_factors_from_a_mapping() -> None:
    factors = Factors.from_mapping({"decode_bandwidth_efficiency": 0.7, "switch_overhead_s": 2})
    assert (factors.decode_bandwidth_efficiency, factors.switch_overhead_s) == (0.7, 2.0)
    changed = {info.name: info for info in factors.describe() if info.basis == "configured"}
    assert set(changed) == {"decode_bandwidth_efficiency", "switch_overhead_s"}
    assert changed["switch_overhead_s"].source == "configuration; default 1.0"
    for info in Factors().describe():
        assert info.unit in {"1", "s", "byte/s"}
        assert info.basis in {"assumed", "fitted"}
        assert len(info.source) > 20


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            {"decode_bandwith_efficiency": 0.7},
            r"cost\.decode_bandwith_efficiency: no such factor \(did you mean"
            r" 'decode_bandwidth_efficiency'\?\)",
        ),
        ({"prefill_efficiency": 1.5}, r"cost\.prefill_efficiency = 1\.5: must be at most 1"),
        ({"prefill_efficiency": 0}, r"cost\.prefill_efficiency = 0: must be greater than 0"),
        ({"switch_overhead_s": -1}, r"cost\.switch_overhead_s = -1: must not be negative"),
        ({"switch_overhead_s": "1"}, r"cost\.switch_overhead_s = '1': expected a finite number"),
        ({"switch_overhead_s": math.inf}, "expected a finite number"),
        ({"disk_read_bytes_per_s": True}, "= True: expected a finite number"),
    ],
)
def test_bad_factors_are_named(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Factors.from_mapping(mapping)
