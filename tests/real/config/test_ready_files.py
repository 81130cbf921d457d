"""The ready configurations of real runs, read by both commands."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from areal_real.check import judge
from areal_real.config import load_config, parse_config, resolved_toml
from areal_sim import memory
from areal_sim.config import load_config as load_simulation
from tests.real.config.cases import H100, READY, ROOT, machine

CONFIGS = sorted(READY.glob("*.toml"))
SIMULATED = ("gpu-1node", "paper-1.5b")
TABLE_1 = ROOT / ".." / "shared" / "published" / "areal_table1.csv"


def test_there_are_the_ready_configurations() -> None:
    assert {path.stem for path in CONFIGS} == {"tiny-cpu", "tiny-cpu-tp2", *SIMULATED}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_ready_configuration_reads_back_as_itself_and_says_how_to_run_it(path: Path) -> None:
    config = load_config(path)
    assert parse_config(resolved_toml(config)) == config
    first = path.read_text(encoding="utf-8").splitlines()[0]
    file = path.relative_to(ROOT).as_posix()
    assert re.fullmatch(rf"# .+ Run: areal-real train {re.escape(file)} --out runs/[\w.-]+", first)


def test_the_two_tiny_ones_differ_in_the_trainer_alone() -> None:
    one, two = (load_config(READY / f"{name}.toml") for name in ("tiny-cpu", "tiny-cpu-tp2"))
    assert two == load_config(READY / "tiny-cpu.toml", ["real.trainer.tensor_parallel=2"])
    assert one.real.trainer.world_size == 1


@pytest.mark.parametrize("name", SIMULATED)
def test_a_run_on_gpus_can_be_simulated_as_it_would_be_run(name: str) -> None:
    real, simulated = load_config(READY / f"{name}.toml"), load_simulation(READY / f"{name}.toml")
    assert real.limits() == simulated.limits()
    assert real.scheduler == simulated.scheduler
    server, trainer = real.real.server, real.real.trainer
    layout = simulated.trainer_layout()
    assert (server.count, server.tensor_parallel, server.static_memory_fraction) == (
        *(simulated.servers, simulated.sim.server.tensor_parallel),
        simulated.sim.server.static_memory_fraction,
    )
    for key in ("tensor_parallel", "pipeline_parallel", "data_parallel", "micro_batch_tokens"):
        assert getattr(trainer, key) == getattr(layout, key), key
    assert (trainer.minibatches, trainer.recompute_activations) == (
        *(simulated.sim.trainer.minibatches, simulated.sim.trainer.recompute_activations),
    )
    assert (simulated.unused_gpus, real.gpus_needed) == (0, simulated.gpus)
    ours, theirs = real.model_shape(), simulated.model_shape()
    assert ours is not None
    for key in ("parameters", "num_layers", "hidden_size", "num_kv_heads", "vocab_size"):
        assert getattr(ours, key) == getattr(theirs, key), key
    memory.server_memory(
        *(simulated.hardware().gpu, theirs, simulated.server_layout()),
        context_tokens=simulated.workload.max_context_tokens,
    )
    memory.trainer_memory(simulated.hardware().gpu, theirs, layout)


@pytest.mark.parametrize("name", SIMULATED)
def test_a_run_on_gpus_fits_a_machine_of_its_size(name: str, tmp_path: Path) -> None:
    config = load_config(READY / f"{name}.toml")
    verdict = judge(config, machine(gpus=(H100,) * config.gpus_needed))
    # What only the user has: problems and tokenizer; and this is one machine, not sixteen.
    theirs = {"real.task.file", "tokenizer"} | ({"nodes"} if config.cluster.nodes > 1 else set())
    assert {finding.subject for finding in verdict.missing("machine")} == theirs
    assert verdict.shape_fits


def test_the_paper_configuration_agrees_with_the_published_table() -> None:
    if not TABLE_1.exists():
        pytest.skip("the published tables are not here")
    with TABLE_1.open(newline="", encoding="utf-8") as file:
        row = next(
            row
            for row in csv.DictReader(file)
            if (row["model"], row["system"]) == ("R1-Distill-Qwen-1.5B", "AReaL")
        )
    config = load_config(READY / "paper-1.5b.toml")
    assert (config.cluster.nodes, config.cluster.gpus) == (int(row["nodes"]), int(row["gpus"]))
    assert config.workload.steps == int(row["ppo_steps"])
    assert config.train_batch_rollouts == config.bounds.max_rollouts_in_flight == 8192
    assert config.real.server.gpus == 0.75 * config.cluster.gpus


def test_the_paper_configuration_has_the_published_settings_of_the_trainer() -> None:
    """Table of training settings of arXiv 2505.24298."""
    real = load_config(READY / "paper-1.5b.toml").real
    trainer = real.trainer
    assert (trainer.tensor_parallel, trainer.pipeline_parallel) == (1, 2)
    assert (trainer.minibatches, trainer.micro_batch_tokens) == (4, 32_768)
    assert (trainer.learning_rate, trainer.adam_beta1, trainer.adam_beta2) == (2e-5, 0.9, 0.95)
    assert (trainer.adam_eps, trainer.weight_decay, trainer.grad_clip) == (1e-5, 0.05, 1.0)
    assert (real.ppo.clip, real.ppo.objective, real.ppo.baseline) == (0.2, "decoupled", "none")
    assert real.ppo.normalise_advantages
