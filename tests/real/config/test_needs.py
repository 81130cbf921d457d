"""What a run needs: closed forms by hand, and the simulator's own memory model."""

from __future__ import annotations

import ast
import dataclasses
import json
from pathlib import Path

import pytest

from areal_real.config import RealConfig, load_config
from areal_real.config import needs as estimates
from areal_real.config.needs import needs_of, server_need, trainer_need
from areal_sched.config.model_shape import ModelShape
from areal_sim import memory
from areal_sim.config import load_config as load_simulation
from tests.real.config.cases import MODEL, READY, ROOT, small

SHAPE = ModelShape.from_hf_config(MODEL, name="six layers")

LAYER = 64 * (2 * 64 + 2 * 16) + 3 * 64 * 96 + 2 * 64 + (64 + 2 * 16)
"""q, k, v, o; gate, up, down; two norms; biases on q, k, v."""

EMBEDDING = 100 * 64


def test_parameters_by_hand() -> None:
    assert SHAPE.parameters == 6 * LAYER + 2 * EMBEDDING + 64


def test_a_trainer_of_one_process_by_hand() -> None:
    need = trainer_need(small("real.trainer.micro_batch_tokens=1000"), SHAPE)
    parameters = 6 * LAYER + 2 * EMBEDDING
    assert (need.weight_bytes, need.gradient_bytes) == (4 * parameters, 4 * parameters)
    assert need.optimizer_bytes == 8 * parameters
    inner = 2 * 64 + 2 * 16 + 3 * 96
    # All six layers are kept, and one is alive once more with its gradients.
    assert need.activation_bytes == 7 * 4 * 1000 * (4 * 64 + inner)
    assert need.logit_bytes == 20 * 1000 * 100


def test_the_fullest_of_several_stages_by_hand() -> None:
    config = small(
        *("real.trainer.pipeline_parallel=3", "real.trainer.tensor_parallel=2"),
        *("real.trainer.data_parallel=4", "real.trainer.distributed_optimizer=true"),
        *("real.trainer.recompute_activations=true", "real.model.dtype=bfloat16"),
        "real.trainer.micro_batch_tokens=1000",
    )
    need = trainer_need(config, SHAPE)
    parameters = (2 * LAYER + EMBEDDING) // 2
    assert need.weight_bytes == 2 * parameters
    # bfloat16 weights have a float32 copy, spread with the moments over 4 ranks.
    assert need.optimizer_bytes == -(-12 * parameters // 4)
    inner = (2 * 64 + 2 * 16 + 3 * 96) // 2
    # The last stage: one micro-batch in flight; two layers keep their input, one is made again.
    assert need.activation_bytes == 2000 * (2 * 64 + 2 * (4 * 64 + inner))
    assert need.logit_bytes == 20 * 1000 * 50


def test_logits_are_held_in_parts() -> None:
    wide = dataclasses.replace(SHAPE, vocab_size=10**7)
    assert trainer_need(small(), wide).logit_bytes == 20 * 2**28


def test_a_server_by_hand() -> None:
    need = server_need(small("real.server.tensor_parallel=2"), SHAPE)
    assert need.weight_bytes == 4 * SHAPE.parameters // 2
    assert need.kv_token_bytes == 4 * 2 * 6 * 8  # one of two KV heads, keys and values, 6 layers
    assert need.kv_bytes == 16_384 * need.kv_token_bytes
    half = server_need(small("real.server.tensor_parallel=2", "real.model.dtype=bfloat16"), SHAPE)
    assert (2 * half.weight_bytes, 2 * half.kv_bytes) == (need.weight_bytes, need.kv_bytes)


def test_disk_by_hand() -> None:
    config = small("real.checkpoint_every_steps=2", "real.evaluation.every_steps=5")
    needs = needs_of(config, SHAPE)
    # 2 checkpoints 2 steps apart and one more step: 5 versions; evaluated ones: 0, 5, 10.
    weights = (5 + 3) * SHAPE.parameters * 4
    checkpoints = 3 * SHAPE.parameters * 12
    assert needs.disk_bytes == estimates.RUN_FOLDER_BYTES + weights + checkpoints
    assert needs.answer_bytes == 5 * 128 * 96 * 20
    never = small("real.checkpoint_every_steps=2", "real.evaluation.every_steps=inf")
    assert needs.disk_bytes - needs_of(never, SHAPE).disk_bytes == 2 * SHAPE.parameters * 4


def test_counts() -> None:
    config = small(
        *("real.device=cuda", "cluster.gpus_per_node=2", "cluster.nodes=9"),
        *("real.server.count=3", "real.server.tensor_parallel=2", "real.server.threads=5"),
        *("real.trainer.data_parallel=4", "real.trainer.tensor_parallel=2"),
    )
    needs = needs_of(config, SHAPE)
    assert (needs.gpus, needs.nodes, needs.processes) == (14, 7, 14)
    assert needs.threads == 3 * 2 * 5 + 8
    assert needs.ports == 3 + 2
    assert needs.open_files == 256 + 2 * 96
    assert needs_of(small(), SHAPE).gpus == 0


def test_host_memory_counts_every_process_and_its_model() -> None:
    one, none = needs_of(small(), SHAPE), needs_of(small(), None)
    assert one.server is not None
    assert one.trainer is not None
    model = one.server.total_bytes + one.trainer.total_bytes
    assert one.host_bytes - none.host_bytes == model
    two = needs_of(small("real.server.count=2", "real.rewards.workers=3"), SHAPE)
    assert two.host_bytes - one.host_bytes == (
        estimates.SERVER_PROCESS_BYTES + one.server.total_bytes + 2 * estimates.REWARD_WORKER_BYTES
    )


@pytest.mark.parametrize("name", ["gpu-1node", "paper-1.5b"])
def test_the_simulator_estimates_the_same_states(name: str) -> None:
    """Both say what stays on a trainer GPU and what a server holds, each by its own code."""
    config, simulated = load_config(READY / f"{name}.toml"), load_simulation(READY / f"{name}.toml")
    model = simulated.model_shape()
    gpu = simulated.hardware().gpu
    theirs = memory.trainer_memory(gpu, model, simulated.trainer_layout())
    ours = trainer_need(config, shape_of(config))
    assert (ours.weight_bytes, ours.gradient_bytes) == (
        theirs.parameter_bytes,
        theirs.gradient_bytes,
    )
    assert ours.optimizer_bytes == theirs.optimizer_bytes
    serving = memory.server_memory(gpu, model, simulated.server_layout())
    need = server_need(config, shape_of(config))
    assert need.weight_bytes == serving.weight_bytes
    assert serving.kv_bytes // need.kv_token_bytes == serving.kv_cache_tokens


def shape_of(config: RealConfig) -> ModelShape:
    shape = config.model_shape()
    assert shape is not None
    return shape


# ---- constants that belong to the trainer -------------------------------------------------------


def constants(path: str) -> dict[str, object]:
    """The constants of a module, read without importing it: it would load torch."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    found: dict[str, object] = {}
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and value is not None:
            code = compile(ast.Expression(value), path, "eval")
            try:
                found[target.id] = eval(code, {"__builtins__": {}})
            except Exception:
                continue  # not a constant
    return found


def test_the_trainer_holds_as_many_logits_and_saves_as_much_of_a_parameter() -> None:
    logits = constants("areal_real/training/logprobs.py")["LOGITS_AT_ONCE"]
    assert logits == estimates.LOGITS_AT_ONCE
    kinds = constants("areal_real/training/optimizer.py")["KINDS"]
    assert isinstance(kinds, tuple)
    assert 4 * len(kinds) == estimates.CHECKPOINT_BYTES


def test_a_models_file_and_its_content_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MODEL), encoding="utf-8")
    assert dataclasses.replace(ModelShape.from_hf_config(tmp_path), name=SHAPE.name) == SHAPE
