"""Megatron-Core's trainer equals plain torch on Hugging Face's Qwen2, in every layout.

The worlds are run once by the fixtures; here their results are compared.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch_file

from areal_real.training.tensor_files import INDEX
from tests.real.training import small

TOLERANCE = 1e-5
ADAM_BETA1 = 0.9

Arrays = dict[str, NDArray[np.float32]]

MODELS = sorted(small.MODELS)
TWO = ["tp2", "pp2", "dp2", "dp2-distributed"]
FOUR = [("tp2-pp2", MODELS), ("tp2-dp2-distributed", ["plain"]), ("pp2-dp2", ["plain"])]
BEYOND_ONE = [
    *(("two", layout, model) for layout in TWO for model in MODELS),
    *(
        pytest.param("four", layout, model, marks=pytest.mark.slow)
        for layout, models in FOUR
        for model in models
    ),
]

beyond_one_process = pytest.mark.parametrize(("world", "layout", "model"), BEYOND_ONE)
in_every_layout = pytest.mark.parametrize(
    ("world", "layout", "model"), [*(("one", "one", model) for model in MODELS), *BEYOND_ONE]
)
of_both_models = pytest.mark.parametrize("model", MODELS)


def tensors(folder: Path) -> Arrays:
    """All tensors of a file, or of a folder of them."""
    found: Arrays = {}
    for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else [folder]:
        arrays = load_file(path)
        assert not found.keys() & arrays.keys(), "a tensor is written twice"
        found |= arrays
    assert found
    return found


def told(folder: Path) -> dict[str, Any]:
    """What a layout or the reference wrote."""
    value: dict[str, Any] = json.loads((folder / "told.json").read_text())
    return value


def assert_equal(found: Arrays, wanted: Arrays, tolerance: float = TOLERANCE) -> None:
    """The same names, and values within an absolute tolerance."""
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance, err_msg=name)


def assert_same(found: Arrays, wanted: Arrays) -> None:
    """Bit for bit."""
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        assert found[name].tobytes() == array.tobytes(), name


@pytest.fixture
def out(request: pytest.FixtureRequest, world: str, layout: str, model: str) -> Path:
    """Results of one layout with one model."""
    folder: Path = request.getfixturevalue(world) / f"{layout}-{model}"
    return folder


@in_every_layout
class TestEqualToPlainTorch:
    def test_weights_go_through_unchanged(self, reference: Path, out: Path, model: str) -> None:
        assert_same(tensors(out / "exported"), tensors(reference / model))

    def test_log_probabilities_of_packed_sequences(
        self, reference: Path, out: Path, model: str
    ) -> None:
        wanted = told(reference / f"{model}-decoupled")["logprobs"]
        found = told(out)["logprobs"]
        assert found.keys() == wanted.keys()
        for rollout, values in wanted.items():
            np.testing.assert_allclose(found[rollout], values, rtol=0, atol=TOLERANCE)

    @pytest.mark.parametrize("objective", ["decoupled", "naive"])
    def test_loss(self, reference: Path, out: Path, model: str, objective: str) -> None:
        wanted = told(reference / f"{model}-{objective}")
        found = told(out)[objective]
        assert found["loss"] == pytest.approx(wanted["loss"], abs=TOLERANCE)
        assert found["grad_norm"] == pytest.approx(wanted["norm"], rel=TOLERANCE)

    @pytest.mark.parametrize("objective", ["decoupled", "naive"])
    def test_gradients(self, reference: Path, out: Path, model: str, objective: str) -> None:
        wanted = tensors(reference / f"{model}-{objective}" / "gradients.safetensors")
        moments = tensors(out / objective / "exp_avg")
        found = {name: array / (1 - ADAM_BETA1) for name, array in moments.items()}
        assert_equal(found, wanted)

    @pytest.mark.parametrize("objective", ["decoupled", "naive"])
    def test_one_optimizer_step(
        self, reference: Path, out: Path, model: str, objective: str
    ) -> None:
        wanted = tensors(reference / f"{model}-{objective}" / "weights.safetensors")
        found = tensors(out / objective / "weights")
        assert_equal(found, wanted)
        before = tensors(reference / model)
        assert all((found[name] != before[name]).any() for name in found), "nothing was learnt"

    def test_several_minibatches_with_every_option(
        self, reference: Path, out: Path, model: str
    ) -> None:
        wanted, found = told(reference / f"{model}-long"), told(out)["long"]
        assert [t["loss"] for t in found] == pytest.approx(wanted["loss"], abs=TOLERANCE)
        assert [t["grad_norm"] for t in found] == pytest.approx(wanted["norm"], rel=1e-4)
        assert_equal(
            tensors(out / "straight" / "weights"),
            tensors(reference / f"{model}-long" / "weights.safetensors"),
        )

    def test_a_supervised_step(self, reference: Path, out: Path, model: str) -> None:
        wanted = told(reference / f"{model}-supervised")
        assert told(out)["supervised"]["loss"] == pytest.approx(wanted["loss"], abs=TOLERANCE)
        assert_equal(
            tensors(out / "supervised" / "weights"),
            tensors(reference / f"{model}-supervised" / "weights.safetensors"),
        )


@in_every_layout
class TestCheckpoints:
    @pytest.mark.parametrize("part", ["weights", "exp_avg", "exp_avg_sq", "rng"])
    def test_resuming_is_exact(self, out: Path, part: str) -> None:
        assert_same(tensors_of_part(out / "resumed", part), tensors_of_part(out / "straight", part))
        assert read(out / "resumed") == read(out / "straight")

    def test_counters_and_random_state_come_back(self, out: Path) -> None:
        found = told(out)
        assert found["counters"] == [1, small.LONG["minibatches"]]
        before, after = found["random"]
        assert before == after


def tensors_of_part(folder: Path, part: str) -> Arrays:
    """Tensors of a checkpoint; random states are told apart by rank."""
    if part != "rng":
        return tensors(folder / part)
    return {
        f"{path.stem}.{name}": array
        for path in (folder / "rng").iterdir()
        for name, array in load_file(path).items()
    }


def read(folder: Path) -> dict[str, Any]:
    """A checkpoint's counters."""
    value: dict[str, Any] = json.loads((folder / "trainer.json").read_text())
    return value


@of_both_models
@pytest.mark.parametrize("layout", TWO)
def test_one_process_goes_on_from_a_checkpoint_of_two(
    one: Path, two: Path, layout: str, model: str
) -> None:
    adopted = one / f"after-{layout}-{model}" / "adopted"
    straight = two / f"{layout}-{model}" / "straight"
    for part in ("weights", "exp_avg", "exp_avg_sq"):
        assert_equal(tensors(adopted / part), tensors(straight / part))


BFLOAT16 = pytest.mark.parametrize(
    ("world", "layout"),
    [("one", "bf16"), ("two", "bf16"), ("two", "bf16-tp2"), ("two", "bf16-pp2")],
)


@BFLOAT16
@pytest.mark.parametrize("model", ["plain"])
def test_resuming_in_bfloat16_is_exact(out: Path) -> None:
    for part in ("weights", "exp_avg", "exp_avg_sq"):
        assert_same(tensors(out / "resumed" / part), tensors(out / "straight" / part))
    # Master weights are kept in float32: they are not all numbers of bfloat16.
    weights = np.concatenate([a.ravel() for a in tensors(out / "straight" / "weights").values()])
    assert (weights.view(np.uint32) & 0xFFFF).any()


@pytest.mark.parametrize("world", ["one", "two"])
def test_servers_get_master_weights_rounded(world: str, request: pytest.FixtureRequest) -> None:
    out = request.getfixturevalue(world) / "bf16-plain"
    served = load_torch_file(out / "served" / "model.safetensors")
    masters = load_torch_file(out / "straight" / "weights" / "model.safetensors")
    assert served.keys() == masters.keys()
    for name, master in masters.items():
        assert torch.equal(served[name], master.to(torch.bfloat16)), name
    assert json.loads((out / "served" / "config.json").read_text())["dtype"] == "bfloat16"


@of_both_models
def test_exports_have_the_configuration_that_hugging_face_wrote(
    reference: Path, one: Path, model: str
) -> None:
    folders = (reference / model, one / f"one-{model}" / "exported")
    wanted, found = (json.loads((folder / "config.json").read_text()) for folder in folders)
    assert found == wanted


@BFLOAT16
@pytest.mark.parametrize("model", ["plain"])
def test_bfloat16_is_near_float32(reference: Path, out: Path) -> None:
    wanted, found = told(reference / "plain-long"), told(out)["long"]
    assert [t["loss"] for t in found] == pytest.approx(wanted["loss"], abs=0.02)
    # Later steps begin from weights that rounding has moved apart.
    assert found[0]["grad_norm"] == pytest.approx(wanted["norm"][0], rel=0.05)


@beyond_one_process
def test_weights_for_servers(reference: Path, out: Path, model: str) -> None:
    assert_same(tensors(out / "sent.safetensors"), tensors(reference / model))


@pytest.mark.parametrize("world", ["one", "two"])
@pytest.mark.parametrize("what", ["recomputed", "chunked"])
def test_options_that_save_memory_change_nothing(
    what: str, world: str, reference: Path, request: pytest.FixtureRequest
) -> None:
    name = {"one": "more-plain", "two": "tp2-plain"}[world]
    found = tensors(request.getfixturevalue(world) / name / what / "weights")
    assert_equal(found, tensors(reference / "plain-decoupled" / "weights.safetensors"))


@pytest.mark.parametrize("layout", ["tp2", "pp2"])
def test_a_new_model_is_the_same_in_every_layout(one: Path, two: Path, layout: str) -> None:
    wanted = tensors(one / "more-plain" / "new")
    assert_same(tensors(two / f"{layout}-plain" / "new"), wanted)
    matrix = wanted["model.embed_tokens.weight"]
    assert matrix.std() == pytest.approx(0.02, rel=0.1)
    assert not np.array_equal(matrix, wanted["lm_head.weight"])
    assert (wanted["model.norm.weight"] == 1).all()
    assert (wanted["model.layers.0.self_attn.q_proj.bias"] == 0).all()


@pytest.mark.parametrize(
    ("world", "layout"),
    [
        ("two", "dp2"),
        ("two", "dp2-distributed"),
        pytest.param("four", "pp2-dp2", marks=pytest.mark.slow),
    ],
)
def test_a_rank_without_sequences(
    one: Path, world: str, layout: str, request: pytest.FixtureRequest
) -> None:
    folders = (one / "more-plain", request.getfixturevalue(world) / f"{layout}-plain")
    wanted, found = (told(folder)["few"] for folder in folders)
    for name in ("loss", "grad_norm", "entropy", "answer_tokens", "micro_batches"):
        assert found[name] == pytest.approx(wanted[name], abs=TOLERANCE), name


@pytest.mark.parametrize("place", ["one/more-plain", "two/dp2-plain"])
def test_a_batch_that_cannot_be_trained_on(place: str, request: pytest.FixtureRequest) -> None:
    world, _, name = place.partition("/")
    oversized, vocabulary = told(request.getfixturevalue(world) / name)["refused"]
    batch = small.batch()
    first = int((batch.lengths > 40).argmax())
    assert oversized == (
        f"rollout {batch.rollout_ids[first]}: {batch.lengths[first]} tokens, a micro-batch has"
        " at most 40"
    )
    assert vocabulary.startswith("rollout 100: token ")
    assert vocabulary.endswith("the model has 0 to 19")


@pytest.mark.parametrize("world", ["one", "two"])
def test_a_full_disk(world: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(world) / "disk-plain"
    found = told(folder)
    names = ["kept", "published"] * 3
    assert found["errors"] == [f"{folder / name}: File too large" for name in names]
    assert found["left"] == ["kept", "published"], "something half-written is left"
    assert found["kept"] == 0, "the checkpoint before is not what it was"
    assert found["later"] == 1


def test_what_statistics_there_are(one: Path) -> None:
    batch = small.batch()
    found = told(one / "one-plain")["long"][0]
    assert found["tokens"] == batch.lengths.sum()
    assert found["answer_tokens"] == (batch.lengths - batch.prompt_tokens).sum()
    assert found["sequences"] == len(batch)
    assert found["optimizer_steps"] == 2
    assert found["micro_batches"] >= batch.lengths.sum() / small.ONE_STEP["micro_batch_tokens"]
    assert found["reward"] == pytest.approx(batch.rewards.mean())
    assert 0 < found["clipped"] < 1
    assert 0 < found["dropped"] < 1
    assert 0 < found["entropy"] <= np.log(20)
    assert {"proximal", "minibatch", "optimizer"} <= {
        name.removeprefix("seconds_") for name in found
    }
    assert "seconds_proximal" not in told(one / "one-plain")["naive"]


def test_several_stages_write_one_folder(two: Path) -> None:
    folder = two / "pp2-plain" / "exported"
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    assert files == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = json.loads((folder / INDEX).read_text())
    assert index["weight_map"]["lm_head.weight"] == files[1]
    assert index["weight_map"]["model.embed_tokens.weight"] == files[0]
    assert index["metadata"]["total_size"] == sum(a.nbytes for a in tensors(folder).values())
