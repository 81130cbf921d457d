"""The trainer on GPUs: the layouts' equality with plain torch on NCCL, and steps of real shapes.

The same scripts as on the CPU, with another device. Skipped where there is no GPU.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import areal_sim.models
from tests.real.training import small
from tests.real.training.conftest import HERE
from tests.real.training.test_layouts import assert_equal, assert_same, tensors, told

GPUS = torch.cuda.device_count()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not GPUS, reason="no GPU that torch can use"),
]

TOLERANCE = 1e-4
"""In float32; sums are taken in another order than on the CPU."""

ACTIONS = ["one_step", "long"]
LAYOUTS = {
    "one": (1, {}),
    "tp2": (2, {"tensor_parallel": 2}),
    "pp2": (2, {"pipeline_parallel": 2}),
    "dp2": (2, {"data_parallel": 2}),
    "dp2-distributed": (2, {"data_parallel": 2, "distributed_optimizer": True}),
    "tp2-pp2": (4, {"tensor_parallel": 2, "pipeline_parallel": 2}),
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, and what plain torch makes of them, on the CPU."""
    out = tmp_path_factory.mktemp("reference")
    small.run_script(HERE / "reference.py", str(out))
    return out


@pytest.fixture(scope="module")
def worlds(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of all layouts that there are GPUs for."""
    out = tmp_path_factory.mktemp("worlds")
    for processes in sorted({count for count, _ in LAYOUTS.values() if count <= GPUS}):
        plan = [
            {
                "name": name,
                "layout": {**layout, "device": "cuda"},
                "models": sorted(small.MODELS),
                "actions": ACTIONS,
            }
            for name, (count, layout) in LAYOUTS.items()
            if count == processes
        ]
        file = out / "plan.json"
        file.write_text(json.dumps(plan))
        arguments = (str(reference), str(out), str(file))
        small.run_script(HERE / "layouts.py", *arguments, processes=processes)
    return out


@pytest.mark.parametrize("model", sorted(small.MODELS))
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_equal_to_plain_torch(reference: Path, worlds: Path, layout: str, model: str) -> None:
    if LAYOUTS[layout][0] > GPUS:
        pytest.skip(f"{layout} takes {LAYOUTS[layout][0]} GPUs, there are {GPUS}")
    out = worlds / f"{layout}-{model}"
    assert_same(tensors(out / "exported"), tensors(reference / model))
    for objective in ("decoupled", "naive"):
        name = f"{model}-{objective}"
        loss = told(reference / name)["loss"]
        assert told(out)[objective]["loss"] == pytest.approx(loss, abs=TOLERANCE)
        wanted = tensors(reference / name / "weights.safetensors")
        assert_equal(tensors(out / objective / "weights"), wanted, TOLERANCE)
    for rollout, values in told(reference / f"{model}-decoupled")["logprobs"].items():
        np.testing.assert_allclose(told(out)["logprobs"][rollout], values, rtol=0, atol=TOLERANCE)
    for part in ("weights", "exp_avg", "exp_avg_sq"):
        resumed, straight = tensors(out / "resumed" / part), tensors(out / "straight" / part)
        assert_equal(resumed, straight, TOLERANCE)


@pytest.mark.parametrize("model", ["qwen2.5-0.5b", "r1-distill-qwen-1.5b"])
def test_a_step_of_a_real_shape(tmp_path: Path, model: str) -> None:
    folder = Path(areal_sim.models.__file__).parent / model
    out = tmp_path / "measured.json"
    script = Path(__file__).with_name("step.py")
    small.run_script(script, str(folder), str(out), "64", "4096", processes=GPUS)
    measured = json.loads(out.read_text())
    print(json.dumps(measured, indent=2))  # for docs; shown by pytest -s
    stats = measured["stats"]
    assert math.isfinite(stats["loss"])
    assert stats["grad_norm"] > 0
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    assert stats["entropy"] == pytest.approx(math.log(vocabulary), rel=0.1), "weights are random"
    assert 0 < (measured["model_flops_utilisation"] or 0.1) < 1
