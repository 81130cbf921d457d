import re
from dataclasses import replace
from pathlib import Path

import pytest

from areal_sim.hardware import GPUS, Cluster, ServerLayout, TrainerLayout, gpu, paper_cluster
from areal_sim.power import GPU_POWER, reference_table


@pytest.mark.parametrize("name", GPUS)
def test_every_gpu_has_plausible_numbers_and_a_source(name: str) -> None:
    card = gpu(name)
    assert card.name == name
    assert 20e9 < card.memory_bytes < 300e9
    assert 0.5e12 < card.hbm_bytes_per_s < 10e12
    assert 1e14 < card.dense_flops < 3e15
    assert 30e9 <= card.nvlink_bytes_per_s <= 900e9
    assert "NVIDIA" in card.source
    assert 300 <= card.busy_watts <= 1000
    assert 0.1 < card.idle_watts / card.busy_watts < 0.4
    assert 50 < card.host_watts < card.busy_watts
    assert 0.2 < card.usd_per_hour < 10
    # Machine balance: a dense/sparse mix-up would double it. H20 is the bandwidth-heavy one.
    assert 30 < card.dense_flops / card.hbm_bytes_per_s < 450


def test_the_expected_gpus_are_there() -> None:
    assert set(GPUS) == {
        *("A100-40GB", "A100-80GB", "H100", "H800", "H200", "H20", "B200", "L40S", "A40"),
        "RTX4090",
    }


def test_every_number_of_power_and_price_says_where_it_comes_from() -> None:
    assert GPU_POWER.keys() == GPUS.keys()
    for name, power in GPU_POWER.items():
        figures = dict(power.figures())
        assert figures["busy_watts"].basis == "data sheet"
        assert figures["busy_watts"].source.startswith("NVIDIA")
        assert figures["usd_per_hour"].unit == "USD/h"
        for figure in figures.values():
            assert figure.source, name
            listed = figure.basis == "list price"
            assert bool(re.search(r"seen \w+ 20\d\d$", figure.source)) == listed, figure.source


def test_board_power_is_the_data_sheets() -> None:
    assert {name: card.busy_watts for name, card in GPUS.items()} == {
        **dict.fromkeys(("A100-40GB", "A100-80GB", "H20"), 400),
        **dict.fromkeys(("H100", "H800", "H200"), 700),
        **{"B200": 1000, "L40S": 350, "A40": 300, "RTX4090": 450},
    }


def test_impossible_power_is_named() -> None:
    power = gpu("H100").power
    with pytest.raises(
        ValueError, match=r"^idle_watts = 701\.0: must be at most busy_watts = 700\.0$"
    ):
        replace(power, idle_watts=replace(power.idle_watts, value=701.0))
    with pytest.raises(ValueError, match=r"^usd_per_hour = 0: must be positive$"):
        replace(power, usd_per_hour=replace(power.usd_per_hour, value=0))


def test_the_guide_has_the_table() -> None:
    guide = Path(__file__).resolve().parents[2] / "docs" / "guides" / "cost-and-energy.md"
    assert reference_table() in guide.read_text(encoding="utf-8"), (
        "put it in again: python -m areal_sim.power"
    )


def test_h800_is_an_h100_with_a_slower_link() -> None:
    h100, h800 = gpu("H100"), gpu("h800")
    assert h800.hbm_bytes_per_s == h100.hbm_bytes_per_s
    assert h800.dense_flops == h100.dense_flops
    assert h800.nvlink_bytes_per_s == 200e9 < h100.nvlink_bytes_per_s == 450e9


def test_an_unknown_gpu_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"gpu = 'H80': no such GPU \(did you mean 'H800'\?\)"):
        gpu("H80")
    with pytest.raises(ValueError, match="did you mean 'RTX4090'"):
        gpu("rtx4900")


def test_the_papers_cluster() -> None:
    cluster = paper_cluster()
    assert cluster.gpu.name == "H800"
    assert cluster.gpus == 512
    assert cluster.network_bytes_per_s_per_node == 400e9  # 3.2 Tbit/s
    assert cluster.network_bytes_per_s_per_gpu == 50e9
    assert paper_cluster(16).gpus == 128


def test_a_group_within_a_node_uses_the_fast_link() -> None:
    cluster = paper_cluster(2)
    assert cluster.group_bytes_per_s(8) == 200e9
    assert cluster.group_bytes_per_s(9) == 50e9
    assert [cluster.nodes_of(gpus) for gpus in (1, 8, 9, 96)] == [1, 1, 2, 12]


def test_bad_sizes_are_named() -> None:
    with pytest.raises(ValueError, match=r"cluster\.nodes = 0: must be positive"):
        Cluster(gpu=gpu("H100"), nodes=0, network_bytes_per_s_per_node=1e9)
    with pytest.raises(ValueError, match=r"server\.tensor_parallel = 0"):
        ServerLayout(tensor_parallel=0)
    with pytest.raises(ValueError, match=r"server\.static_memory_fraction = 1\.2: must lie in"):
        ServerLayout(static_memory_fraction=1.2)
    with pytest.raises(ValueError, match=r"trainer\.data_parallel = -1: must be at least 1"):
        TrainerLayout(data_parallel=-1)


def test_trainer_layout_counts_gpus() -> None:
    layout = TrainerLayout(tensor_parallel=2, pipeline_parallel=8, data_parallel=6)
    assert (layout.pipeline_gpus, layout.gpus) == (16, 96)
