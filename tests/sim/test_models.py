import json
from pathlib import Path
from typing import Any

import pytest

from areal_sim.models import ALIASES, ModelShape, load_model, model_names

QWEN3_8B = {
    "model_type": "qwen3",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # Exact totals of the published checkpoints (sum over safetensors shapes).
        ("qwen2.5-0.5b", 494_032_768),
        ("llama-3.2-1b", 1_235_814_400),
        ("r1-distill-qwen-1.5b", 1_777_088_000),
        ("r1-distill-qwen-7b", 7_615_616_512),
        ("r1-distill-qwen-14b", 14_770_033_664),
        ("r1-distill-qwen-32b", 32_763_876_352),
    ],
)
def test_parameter_counts_are_exact(name: str, parameters: int) -> None:
    assert load_model(name).parameters == parameters
    assert load_model(name).weight_bytes == 2 * parameters


def test_qwen25_base_sizes_follow_from_tying() -> None:
    # Qwen2.5-1.5B is the same network with tied embeddings: 1.54B.
    untied = load_model("1.5b")
    assert untied.parameters - untied.embedding_parameters == 1_543_714_304


def test_qwen3_has_head_norms_no_biases_and_its_own_head_dim() -> None:
    shape = ModelShape.from_hf_config(QWEN3_8B, name="qwen3-8b")
    assert shape.parameters == 8_190_735_360
    assert (shape.qk_norm, shape.qkv_bias) == (True, False)
    assert shape.query_width == 4096


def test_every_alias_names_a_shipped_model() -> None:
    assert set(ALIASES.values()) == set(model_names())
    for alias, name in ALIASES.items():
        assert load_model(alias) == load_model(name)
        assert load_model(alias.upper()).name == name


def test_kv_bytes_per_token() -> None:
    # layers * (keys and values) * KV heads * head width * fp16
    assert load_model("1.5b").kv_bytes_per_token == 28 * 2 * 2 * 128 * 2
    assert load_model("7b").kv_bytes_per_token == 28 * 2 * 4 * 128 * 2 == 57_344
    assert load_model("32b").kv_bytes_per_token == 64 * 2 * 8 * 128 * 2 == 262_144


def test_kv_heads_are_replicated_beyond_their_number() -> None:
    shape = load_model("1.5b")  # 2 KV heads
    assert shape.kv_bytes_per_token_per_gpu(2) == shape.kv_bytes_per_token // 2
    assert shape.kv_bytes_per_token_per_gpu(4) == shape.kv_bytes_per_token // 2
    with pytest.raises(ValueError, match=r"tensor_parallel = 8: r1-distill-qwen-1\.5b has 12"):
        shape.kv_bytes_per_token_per_gpu(8)


def test_forward_flops_by_hand() -> None:
    shape = load_model("7b")
    layer = 3584 * (3584 + 512 + 512 + 3584) + 3 * 3584 * 18944
    assert shape.forward_flops(1000, lm_head=False) == 28 * (
        2 * layer * 1000 + 2 * 3584 * 1000 * 1000
    )
    assert shape.forward_flops(1000) - shape.forward_flops(1000, lm_head=False) == (
        2 * 152064 * 3584 * 1000
    )
    # The rule of thumb: two operations per parameter that multiplies, for short sequences.
    assert shape.forward_flops(1) == pytest.approx(2 * (7.616e9 - 0.545e9), rel=1e-3)


def test_a_file_a_folder_and_a_mapping_agree(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(QWEN3_8B))
    expected = ModelShape.from_hf_config(QWEN3_8B, name="x")
    assert ModelShape.from_hf_config(file, name="x") == expected
    assert ModelShape.from_hf_config(tmp_path, name="x") == expected
    assert load_model(tmp_path).name == tmp_path.name


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"neither a known model nor a path.*'r1-distill-qwen-7b'"):
        load_model("r1-distil-qwen-7b")


@pytest.mark.parametrize("key", ["model_type", "hidden_size", "num_hidden_layers", "vocab_size"])
def test_a_missing_key_is_named_with_its_file(tmp_path: Path, key: str) -> None:
    values = {name: value for name, value in QWEN3_8B.items() if name != key}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=rf"{tmp_path.name}/config\.json: missing key '{key}'"):
        ModelShape.from_hf_config(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("hidden_size", "4096", "hidden_size = '4096': expected a positive integer"),
        ("num_hidden_layers", 0, "num_hidden_layers = 0: expected a positive integer"),
        ("vocab_size", True, "vocab_size = True: expected a positive integer"),
        ("tie_word_embeddings", 1, "tie_word_embeddings = 1: expected true or false"),
        ("model_type", "qwen4", r"model_type = 'qwen4': not a supported family \(did you mean"),
        ("torch_dtype", "float8", "torch_dtype = 'float8': not supported"),
        ("num_key_value_heads", 5, "is not a multiple of num_key_value_heads = 5"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, key: str, value: Any, message: str) -> None:
    text = json.dumps({**QWEN3_8B, key: value}, indent=2)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        ModelShape.from_hf_config(tmp_path)
    if key != "num_key_value_heads":  # found when the shape is built, with the model's name
        line = next(n for n, row in enumerate(text.splitlines(), 1) if f'"{key}"' in row)
        assert f"config.json:{line}:3: " in str(caught.value)


def test_sliding_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="only full attention is modelled"):
        ModelShape.from_hf_config({**QWEN3_8B, "use_sliding_window": True})


def test_broken_json_is_located(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{\n  "hidden_size": 12,,\n}')
    with pytest.raises(ValueError, match=r"config\.json:2:21: not JSON"):
        ModelShape.from_hf_config(tmp_path)
    with pytest.raises(ValueError, match=r"config\.json: cannot be read"):
        ModelShape.from_hf_config(tmp_path / "nowhere" / "config.json")
