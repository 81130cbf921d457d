"""Weight transfers, decode steps and training steps."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from areal_sim.costs import Factors
from benchmarks import decode_steps, shapes, trainer_mfu, weight_sync
from benchmarks.measured import DataError
from tests.benchmarks.made_up import real_data, write


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("qwen3-0.6b", 0.596),
        ("qwen3-4b", 4.022),
        ("qwen3-32b", 32.762),
        ("qwen2-7b", 7.616),
        ("llama-3.1-8b", 8.030),
    ],
)
def test_shapes_have_the_parameters_of_their_model_cards(name: str, billions: float) -> None:
    assert shapes.shape(name).parameters / 1e9 == pytest.approx(billions, abs=5e-4)


def transfer(**changes: object) -> dict[str, object]:
    row: dict[str, object] = {"model": "Qwen2.5-7B", "train_gpus": 8, "rollout_gpus": 8}
    return row | {"hardware": "H100", "method": "nccl", "seconds": 5.0} | changes


def test_a_transfer_is_two_overheads_a_gather_and_a_broadcast(tmp_path: Path) -> None:
    write(tmp_path / weight_sync.TIMES, [transfer(), transfer(model="Qwen3-8B")])
    fitted, predicted = weight_sync.compare(tmp_path).cases
    factors = Factors()
    size = 7.62e9 * 2
    gather = size * 7 / 8 / (450e9 * factors.collective_efficiency)
    assert fitted.predicted == pytest.approx(
        factors.weight_publish_overhead_s
        + factors.weight_load_overhead_s
        + gather
        + size / factors.broadcast_bytes_per_s
    )
    assert (fitted.fitted, predicted.fitted) == (True, False)
    assert fitted.quantity == "nccl (s)"


def test_unknown_models_and_gpus_are_left_out(tmp_path: Path) -> None:
    rows = [transfer(), transfer(model="Other-1B"), transfer(hardware="TPU")]
    write(tmp_path / weight_sync.TIMES, rows)
    report = weight_sync.compare(tmp_path)
    assert len(report.cases) == 1
    assert [reason for _, reason in report.left_out] == [
        "model Other-1B is not known here",
        "GPU TPU is not known here",
    ]


def cell(**changes: object) -> dict[str, object]:
    row: dict[str, object] = {"system": "h100_sxm", "model": "1.5B", "tp": 1}
    return row | {"batch": 8, "ctx": 1024, "step_ms": 2.0} | changes


def test_decode_cells_whose_cache_does_not_fit_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / decode_steps.CELLS, [cell(), cell(batch=512, ctx=32_768)])
    report = decode_steps.compare(tmp_path)
    (case,) = report.cases
    assert case.fitted
    assert case.quantity == "h100_sxm step (ms)"
    assert report.left_out == [("1 cells of h100_sxm", "weights and KV cache do not fit")]


def test_one_factor_is_fitted_on_every_fifth_slow_cell(tmp_path: Path) -> None:
    """Cells made with an efficiency of 0.5 give 0.5 back."""
    factors = decode_steps.with_kv_efficiency(0.5)
    rows = []
    for batch in (1, 2, 4, 8, 16, 32):
        row = cell(system="a100_sxm", batch=batch, ctx=8_192)
        made = decode_steps.Cell("a100_sxm", "1.5B", 1, batch, batch * 8_192, 1.0)
        rows.append(row | {"step_ms": made.predicted_ms(factors)})
    write(tmp_path / decode_steps.CELLS, rows)
    report = decode_steps.compare(tmp_path)
    assert report.fits[-1].value == "0.50"
    second = [case for case in report.cases if "one factor" in case.quantity]
    assert [case.fitted for case in second] == [True, False, False, False, False, True]
    assert max(abs(case.error) for case in second) < 1e-6
    first = [case for case in report.cases if "one factor" not in case.quantity]
    assert not any(case.fitted for case in first)


def test_an_unknown_system_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / decode_steps.CELLS, [cell(system="z9")])
    with pytest.raises(DataError, match=r":2: column 'system': 'z9': no such system"):
        decode_steps.compare(tmp_path)


def step(**changes: object) -> dict[str, object]:
    row: dict[str, object] = {
        "type": "rl",
        "num_gpus": 1,
        "model_name": "Qwen/Qwen3-0.6B",
        "lora_rank": "",
        "seq_len": 8_192,
        "ac": "Recompute",
        "micro_batches": 2,
        "device_name": "NVIDIA H100 80GB HBM3",
        "success": "True",
        "step_time.mean": 0.5,
    }
    return row | changes


def test_a_training_step_is_its_micro_batches_and_the_optimizer(tmp_path: Path) -> None:
    write(tmp_path / trainer_mfu.STEPS, [step()])
    (case,) = trainer_mfu.compare(tmp_path).cases
    factors, model, tokens = Factors(), shapes.shape("qwen3-0.6b"), 8_192
    layers = 4 * model.forward_flops(tokens, lm_head=False)
    head = 3 * model.head_flops_per_token * tokens
    seconds = (layers + head) / (989e12 * factors.training_efficiency)
    adam = 30 * model.parameters / (3_350e9 * factors.optimizer_bandwidth_efficiency)
    overheads = 2 * 4 * factors.micro_batch_overhead_s + factors.optimizer_overhead_s
    assert case.predicted == pytest.approx(2 * seconds + adam + overheads)
    assert not case.fitted


def test_training_rows_that_cannot_be_compared_are_counted_by_reason(tmp_path: Path) -> None:
    rows = [
        step(),
        step(success="False"),
        step(model_name="Qwen/Qwen3-30B-A3B-Instruct-2507"),
        step(device_name="NVIDIA RTX A6000"),
        step(lora_rank=16),
        step(lora_rank=16),
        step(ac="Offload"),
    ]
    write(tmp_path / trainer_mfu.STEPS, rows)
    report = trainer_mfu.compare(tmp_path)
    assert len(report.cases) == 1
    assert [count for count, _ in report.left_out] == [
        *("1 rows", "1 rows", "1 rows", "2 rows", "1 rows"),
    ]


def test_real_decode_steps() -> None:
    report = decode_steps.compare(real_data(decode_steps.CELLS))
    median = {
        quantity: statistics.median(
            abs(case.error) for case in report.cases if case.quantity == quantity
        )
        for quantity in {case.quantity for case in report.cases}
    }
    assert median["h100_sxm step (ms)"] < 0.03
    assert median["h200_sxm step (ms)"] < 0.04


def test_real_training_steps() -> None:
    report = trainer_mfu.compare(real_data(trainer_mfu.STEPS))
    h200 = [abs(case.error) for case in report.cases if case.quantity == "step on H200 (s)"]
    assert len(report.cases) == 13
    assert max(h200) < 0.2


def test_real_transfers() -> None:
    report = weight_sync.compare(real_data(weight_sync.TIMES))
    assert len(report.cases) == 13
    assert sum(case.fitted for case in report.cases) == 3
    assert not report.left_out
