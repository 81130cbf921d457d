"""Configuration: ``--set``, and where GPUs go."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from areal_sched.errors import ConfigError
from areal_sched.schedulers.synchronous import Synchronous
from areal_sim.config import (
    ClusterConfig,
    load_config,
    parse_config,
    resolved_toml,
)
from areal_sim.config.placement import place
from tests.sim.config_cases import (
    LOGNORMAL,
    ROOT,
    SMALL,
    TRACE,
    refused,
    small,
)
from traces.data import sample_path

# ---- overrides ----------------------------------------------------------------------------------


def test_overrides_are_toml_or_words() -> None:
    config = small(
        *("limits.eta=inf", "cluster.nodes=1", "workload.steps=20", "sim.seed=3"),
        *("scheduler.routing=least_kv", "sim.faults.straggler_share = 0.1"),
    )
    assert config.limits().eta is None
    assert (config.gpus, config.workload.steps, config.sim.seed) == (8, 20, 3)
    assert config.scheduler.options == (("routing", "least_kv"),)
    assert config.sim.faults.straggler_share == 0.1
    assert small("workload.steps=20", "workload.steps=30").workload.steps == 30


def test_placement_switches() -> None:
    colocated = SMALL.replace("nodes = 4", "nodes = 4\ncolocated = true")
    assert parse_config(colocated).cluster.generation_share is None
    half = parse_config(colocated, ["cluster.generation_share=0.5"])
    assert (half.cluster.colocated, half.generation_gpus) == (False, 16)
    separate = SMALL.replace("nodes = 4", "nodes = 4\ngeneration_share = 0.5")
    both = parse_config(separate, ["cluster.colocated=true"])
    assert (both.cluster.colocated, both.generation_gpus, both.training_gpus) == (True, 32, 32)
    # Off is what it was: the share stays, or gets its default.
    assert parse_config(separate, ["cluster.colocated=false"]).generation_gpus == 16
    assert parse_config(colocated, ["cluster.colocated=false"]).generation_gpus == 24


@pytest.mark.parametrize("second", [["workload.preset=code-14b"], [TRACE], LOGNORMAL])
@pytest.mark.parametrize(
    "first",
    [
        ["workload.preset=code-32b"],
        [TRACE, "workload.resample=pooled"],
        ["workload.length.constant=50"],
        LOGNORMAL,
    ],
)
def test_workload_switches(first: list[str], second: list[str]) -> None:
    """From any kind to any other, both within the overrides and from a file to an override."""
    once = small(*second)
    assert small(*first, *second).workload == once.workload or first[0] == second[0]
    assert parse_config(resolved_toml(small(*first)), second).workload.length == (
        once.workload.length
    )


def test_constant_lengths_replace_a_distribution() -> None:
    length = small(*LOGNORMAL, "workload.length.constant=50").workload.length
    assert length is not None
    assert (length.constant, length.mu, length.degrees_of_freedom) == (50, None, None)
    back = small("workload.length.constant=50", *LOGNORMAL).workload.length
    assert back is not None
    assert (back.constant, back.mu, back.degrees_of_freedom) == (None, 0.5, 8.0)


def test_model_switches() -> None:
    config = small(f"model.config={ROOT / 'areal_sim/models/qwen2.5-0.5b'}")
    assert config.model.name is None
    assert config.model.config == ROOT / "areal_sim/models/qwen2.5-0.5b/config.json"
    assert config.model_shape().num_layers == 24


def test_another_scheduler_does_not_get_the_options_of_the_old_one() -> None:
    text = SMALL + '\n[scheduler]\nresume_after = "evaluation"\nrouting = "least_kv"\n'
    changed = parse_config(text, ["scheduler.unit=group", "scheduler.class=synchronous"])
    assert isinstance(changed.new_scheduler(), Synchronous)
    assert changed.scheduler.options == (("unit", "group"),)
    same = parse_config(text, ["scheduler.class=areal", "scheduler.barrier=false"])
    assert [name for name, _ in same.scheduler.options] == ["barrier", "resume_after", "routing"]


def test_another_cost_provider_does_not_get_the_file_of_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "costs.toml").write_text("", encoding="utf-8")
    table = '\n[sim.cost]\nprovider = "table"\nfile = "costs.toml"\nprefill_efficiency = 0.5\n'
    before = parse_config(SMALL + table, folder=tmp_path)
    assert before.sim.cost.file == tmp_path / "costs.toml"
    after = parse_config(SMALL + table, ["sim.cost.provider=roofline"], folder=tmp_path)
    assert after.sim.cost.file is None
    assert after.sim.cost.factors.prefill_efficiency == 0.5
    file = f"sim.cost.file={tmp_path / 'costs.toml'}"
    fitted = parse_config(SMALL + table, ["sim.cost.provider=fitted", file], folder=tmp_path)
    assert "prefill_efficiency" not in resolved_toml(fitted)
    message = refused(SMALL, "sim.cost.provider=fitted", file, "sim.cost.prefill_efficiency=0.5")
    assert "sim.cost.prefill_efficiency: has no effect" in message


def test_paths_are_relative_to_the_file_and_in_overrides_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    data = sample_path("azure.csv").read_bytes()
    for folder in ("here", "there"):
        (tmp_path / folder / "trace.csv").write_bytes(data)
    text = SMALL.replace('preset = "math-7b-boba"', 'trace = "trace.csv"')
    (tmp_path / "there" / "run.toml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path / "here")
    config = load_config("../there/run.toml")
    assert config.workload.trace == tmp_path / "there" / "trace.csv"
    assert (config.workload.trace_format, config.workload.resample) == ("azure", "by_prompt")
    config = load_config("../there/run.toml", ["workload.trace=trace.csv"])
    assert config.workload.trace == tmp_path / "here" / "trace.csv"


# ---- placement ----------------------------------------------------------------------------------

GPUS = st.sampled_from([1, 2, 3, 4, 6, 8, 16])
SHARES = st.one_of(st.floats(0.001, 0.999), st.sampled_from([0.25, 0.5, 0.75]))


@given(st.integers(1, 70), GPUS, st.one_of(st.none(), SHARES), GPUS, GPUS)
def test_every_gpu_is_counted_once(
    nodes: int, per_node: int, share: float | None, server_gpus: int, rank_gpus: int
) -> None:
    cluster = ClusterConfig(
        nodes=nodes,
        gpus_per_node=per_node,
        generation_share=share,
        colocated=share is None,
    )
    try:
        placed = place(cluster, server_gpus=server_gpus, rank_gpus=rank_gpus)
    except ConfigError:
        assume(False)
    generating, training = placed.generation_gpus, placed.training_gpus
    assert generating == placed.servers * server_gpus >= server_gpus
    assert training == placed.data_parallel_ranks * rank_gpus >= rank_gpus
    if share is None:
        assert placed.unused_gpus == cluster.gpus - max(generating, training)
        assert 0 <= cluster.gpus - generating < server_gpus
        assert 0 <= cluster.gpus - training < rank_gpus
    else:
        assert placed.unused_gpus == cluster.gpus - generating - training
        assert abs(generating - cluster.gpus * share) <= server_gpus / 2 + 1e-9
        assert 0 <= placed.unused_gpus < rank_gpus


@given(st.integers(1, 6), GPUS, st.one_of(st.none(), SHARES), GPUS, GPUS)
def test_what_an_impossible_placement_proposes_does_work(
    nodes: int, per_node: int, share: float | None, server_gpus: int, rank_gpus: int
) -> None:
    cluster = ClusterConfig(
        nodes=nodes,
        gpus_per_node=per_node,
        generation_share=share,
        colocated=share is None,
    )
    try:
        place(cluster, server_gpus=server_gpus, rank_gpus=rank_gpus)
    except ConfigError as error:
        _, _, proposals = str(error).partition("would fit: ")
    else:
        assume(False)
    assert proposals
    if found := re.search(r"cluster.nodes = (\d+)", proposals):
        enough = int(found[1])
        place(replace(cluster, nodes=enough), server_gpus=server_gpus, rank_gpus=rank_gpus)
        for fewer in range(nodes, enough):
            with pytest.raises(ConfigError):
                place(replace(cluster, nodes=fewer), server_gpus=server_gpus, rank_gpus=rank_gpus)
    for written in re.findall(r"(?:generation_share (?:= |from )|to )([\d.e-]+)", proposals):
        other = replace(cluster, generation_share=float(written))
        place(other, server_gpus=server_gpus, rank_gpus=rank_gpus)
    if found := re.search(r"rank of at most (\d+)", proposals):
        place(cluster, server_gpus=server_gpus, rank_gpus=int(found[1]))


@pytest.mark.parametrize(
    ("overrides", "counts"),
    [
        # 56 GPUs: 42 generate, the rest is 3 ranks of 4 and 2 GPUs without work.
        (["cluster.nodes=7", "sim.trainer.pipeline_parallel=4"], (42, 42, 12, 3, 2)),
        # 0.75 * 56 / 4 = 10.5 servers: half a server is rounded up.
        (["cluster.nodes=7", "sim.server.tensor_parallel=4"], (44, 11, 12, 12, 0)),
        (["cluster.colocated=true", "sim.trainer.pipeline_parallel=3"], (32, 32, 30, 10, 0)),
    ],
)
def test_placement_by_hand(overrides: list[str], counts: tuple[int, ...]) -> None:
    placed = small(*overrides).placement
    assert counts == (
        *(placed.generation_gpus, placed.servers, placed.training_gpus),
        *(placed.data_parallel_ranks, placed.unused_gpus),
    )
