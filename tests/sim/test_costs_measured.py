import csv
import statistics
from pathlib import Path

import pytest

from areal_sim.costs import (
    DecodeFit,
    Factors,
    Roofline,
    ServerCost,
    decode_time_fs,
)
from areal_sim.costs.protocol import FS_PER_S
from areal_sim.costs.tables import fit_decode_table
from areal_sim.hardware import Cluster, ServerLayout, TrainerLayout, gpu
from areal_sim.memory import DoesNotFit, server_memory
from areal_sim.models import load_model

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"
DECODE_TABLE = SHARED / "measured" / "decode_step_ms_composed.csv"
FIGURE_6A = SHARED / "published" / "areal_fig6_ablations.csv"
NO_OVERHEAD = Factors.from_mapping({"server_step_overhead_s": 0, "server_rollout_overhead_s": 0})

needs_table = pytest.mark.skipif(
    not DECODE_TABLE.is_file(), reason="the measured decode table lies beside the repository"
)


def without_overhead(card: str, model: str, tp: int) -> tuple[int, Roofline]:
    """KV capacity in tokens (0 if the weights do not fit) and the roofline of one server."""
    shape, layout = (
        load_model(model),
        ServerLayout(tensor_parallel=tp, static_memory_fraction=0.9),
    )
    try:
        capacity = server_memory(gpu(card), shape, layout).kv_cache_tokens
    except DoesNotFit:
        capacity = 0
    cluster = Cluster(gpu=gpu(card), nodes=1, network_bytes_per_s_per_node=4e11)
    provider = Roofline(
        cluster=cluster,
        model=shape,
        server_layout=layout,
        trainer_layout=TrainerLayout(),
        factors=NO_OVERHEAD,
    )
    return capacity, provider


def errors(card: str, keep: set[tuple[str, int]] | None = None) -> list[float]:
    """Relative errors of the roofline over the cells of one system whose KV fits."""
    providers: dict[tuple[str, int], tuple[int, ServerCost]] = {}
    found = []
    with DECODE_TABLE.open(newline="") as file:
        for row in csv.DictReader(file):
            key = (row["model"], int(row["tp"]))
            if row["system"] != f"{card.lower()}_sxm" or (keep is not None and key not in keep):
                continue
            if key not in providers:
                capacity, provider = without_overhead(card, *key)
                providers[key] = capacity, provider.server()
            capacity, cost = providers[key]
            n, kv = int(row["batch"]), int(row["batch"]) * int(row["ctx"])
            if kv <= capacity:
                step_ms = decode_time_fs(cost, n, kv, 1) / FS_PER_S * 1000
                found.append(step_ms / float(row["step_ms"]) - 1)
    return found


@needs_table
@pytest.mark.parametrize(
    ("card", "keep", "cells", "median", "largest"),
    [
        ("H100", {("1.5B", 1), ("7B", 1)}, 104, 0.016, 0.15),  # what the factors were fitted to
        ("H100", None, 613, 0.021, 0.15),  # the same, all models and tensor parallelism
        ("H200", None, 680, 0.028, 0.31),  # not fitted to
    ],
)
def test_the_roofline_against_composed_decode_steps(
    card: str, keep: set[tuple[str, int]] | None, cells: int, median: float, largest: float
) -> None:
    found = [abs(error) for error in errors(card, keep)]
    assert len(found) == cells
    assert statistics.median(found) < median
    assert max(found) < largest


@needs_table
@pytest.mark.parametrize(("model", "median"), [("1.5B", 0.022), ("7B", 0.011)])
def test_a_table_fit_against_composed_decode_steps(model: str, median: float) -> None:
    capacity, _ = without_overhead("H100", model, 1)
    fit = fit_decode_table(
        DECODE_TABLE,
        tensor_parallel=1,
        max_kv_tokens=capacity,
        system="h100_sxm",
        model=model,
    )
    # Three coefficients cannot follow the kernels' steps; this is how close they come.
    assert isinstance(fit, DecodeFit)
    assert fit.median_relative_error < median
    assert fit.largest_relative_error < 0.1


@pytest.mark.skipif(not FIGURE_6A.is_file(), reason="published numbers lie beside the repository")
def test_training_efficiency_follows_from_the_papers_figure() -> None:
    """Figure 6a at face value; and what it would be by the released code's FLOP count, at 9k."""
    published = {}
    with FIGURE_6A.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["figure"] == "6a" and row["variant"] == "dynamic":
                published[row["model"]] = float(row["value"]) * 1e12
    converted = []
    for name, label in (("1.5b", "1B"), ("7b", "7B"), ("32b", "32B")):
        shape, length = load_model(name), 9000
        h = shape.hidden_size
        layer = 4 * h * h + 2 * length * h + 3 * h * shape.intermediate_size
        logged = 4 * (2 * shape.num_layers * layer + 4 * shape.vocab_size * h) * length
        ours = 3 * shape.forward_flops(length) + shape.forward_flops(length, lm_head=False)
        converted.append(published[label] * ours / logged / gpu("H800").dense_flops)
    assert [round(value, 2) for value in converted] == [0.30, 0.36, 0.33]
    peak = gpu("H800").dense_flops
    at_face_value = statistics.mean(value / peak for value in published.values())
    assert Factors().training_efficiency == pytest.approx(at_face_value, abs=0.005)
