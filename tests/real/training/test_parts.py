"""Parts of the trainer that need no world: shapes, files, packing, log-probabilities."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from areal_real.training.architecture import Architecture
from areal_real.training.attention import PackedAttention, grouped_attention
from areal_real.training.logprobs import token_logprobs, vocab_parallel_logprobs
from areal_real.training.micro_batch import LIKE_LENGTHS, check_batch, micro_batch_of
from areal_real.training.settings import TrainerSettings
from areal_real.training.slots import all_shapes, slots_of
from areal_real.training.tensor_files import (
    INDEX,
    SINGLE,
    RandomTensors,
    TensorFolder,
    TensorWriter,
)
from areal_sched.errors import ConfigError
from tests.real.training import small

CPU = torch.device("cpu")


class TestArchitecture:
    def test_reads_what_hugging_face_writes(self, tmp_path: Path) -> None:
        read = Architecture.read(small.write_config(tmp_path, rope_theta=5e5, rms_norm_eps=1e-5))
        assert (read.layers, read.hidden, read.heads, read.kv_heads, read.head_dim) == (
            4,
            32,
            4,
            2,
            8,
        )
        assert (read.rope_base, read.norm_eps, read.tied) == (5e5, 1e-5, False)

    def test_rotary_table_of_newer_files(self, tmp_path: Path) -> None:
        rope = {"rope_type": "default", "rope_theta": 7e3}
        read = Architecture.read(small.write_config(tmp_path, rope_parameters=rope))
        assert read.rope_base == 7e3

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"model_type": "llama"}, "model_type = 'llama'"),
            ({"model_type": "qwen3"}, "did you mean 'qwen2'"),
            ({"hidden_size": None}, "hidden_size = None: must be a whole number above 0"),
            ({"vocab_size": 0}, "vocab_size = 0"),
            ({"num_hidden_layers": True}, "num_hidden_layers = True"),
            ({"rope_scaling": {"type": "yarn"}}, "rope type 'yarn'"),
            ({"use_sliding_window": True}, "use_sliding_window = True"),
            ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
            ({"num_key_value_heads": 3}, "num_key_value_heads = 3: must divide"),
            ({"num_attention_heads": 5}, "hidden_size = 32: must be num_attention_heads"),
        ],
    )
    def test_says_what_it_cannot_train(
        self, tmp_path: Path, changes: dict[str, Any], message: str
    ) -> None:
        folder = small.write_config(tmp_path, **changes)
        with pytest.raises(ConfigError, match=re.escape(message)) as caught:
            Architecture.read(folder)
        assert str(folder / "config.json") in str(caught.value)

    @pytest.mark.parametrize("text", [None, "{", "[]"])
    def test_no_config(self, tmp_path: Path, text: str | None) -> None:
        if text is not None:
            (tmp_path / "config.json").write_text(text)
        with pytest.raises(ConfigError, match=r"config\.json"):
            Architecture.read(tmp_path)

    @pytest.mark.parametrize(
        ("tensor", "pipeline", "message"),
        [
            (4, 1, "tensor_parallel = 4: must divide the model's num_key_value_heads (2)"),
            (1, 3, "pipeline_parallel = 3: must divide the model's num_hidden_layers (4)"),
        ],
    )
    def test_layouts_that_do_not_divide(
        self, tmp_path: Path, tensor: int, pipeline: int, message: str
    ) -> None:
        read = Architecture.read(small.write_config(tmp_path))
        read.check_layout(tensor_parallel=2, pipeline_parallel=4)
        with pytest.raises(ConfigError, match=re.escape(message)):
            read.check_layout(tensor_parallel=tensor, pipeline_parallel=pipeline)


class TestSettings:
    def test_travel_as_json(self) -> None:
        settings = TrainerSettings(
            micro_batch_tokens=8, learning_rate=1e-3, tensor_parallel=2, data_parallel=3
        )
        assert TrainerSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
        assert settings.processes == 6

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("micro_batch_tokens", 0),
            ("learning_rate", 0.0),
            ("device", "tpu"),
            ("objective", "ppo"),
            ("warmup_steps", -1),
            ("temperature", 0.0),
        ],
    )
    def test_range(self, name: str, value: Any) -> None:
        options = {"micro_batch_tokens": 8, "learning_rate": 1e-3, name: value}
        with pytest.raises(ConfigError, match=f"trainer {name} = "):
            TrainerSettings(**options)


class TestMicroBatch:
    def test_takes_answers_out_of_the_batch(self) -> None:
        batch = small.batch()
        advantages = np.arange(len(batch.tokens), dtype=np.float32)
        micro = micro_batch_of(batch, advantages, [7, 2], CPU)
        start, length, prompt = (
            int(a[2]) for a in (batch.starts, batch.lengths, batch.prompt_tokens)
        )
        answers = int((batch.lengths - batch.prompt_tokens)[7])
        assert micro.targets[answers:].tolist() == (
            batch.tokens[start + prompt : start + length].tolist()
        )
        assert micro.advantages[answers:].tolist() == list(range(start + prompt, start + length))
        assert micro.positions[-length:].tolist() == list(range(length))
        assert (micro.tokens[0, 1:][micro.sources] == micro.targets).all()
        assert micro.packing.ends.tolist() == [0, int(batch.lengths[7]), micro.tokens.shape[1]]

    def test_groups_hold_like_lengths(self) -> None:
        batch = small.batch(sequences=40)
        packing = micro_batch_of(
            batch, np.zeros(len(batch.tokens), np.float32), range(40), CPU
        ).packing
        assert 1 < len(packing.groups) < 15
        places = torch.cat([group.places.flatten() for group in packing.groups])
        assert (places[packing.back] == torch.arange(len(batch.tokens))).all()
        for group in packing.groups:
            ends = group.places[:, -1] - group.places[:, 0] + 1
            assert ends.min() >= LIKE_LENGTHS * group.places.shape[1]

    @pytest.mark.parametrize(
        ("field", "place", "value", "message"),
        [
            ("tokens", 3, -1, "rollout 100: token -1, the model has 0 to 18"),
            ("tokens", -1, 19, "rollout 111: token 19"),
            ("prompt_tokens", 1, 0, "rollout 101: its prompt is empty"),
            ("behaviour_logprobs", -1, np.nan, "rollout 111: log-probability nan"),
            ("lengths", 0, 1, "lengths sum to"),
        ],
    )
    def test_what_cannot_be_trained_on(
        self, field: str, place: int, value: float, message: str
    ) -> None:
        batch = small.batch()
        getattr(batch, field)[place] = value
        with pytest.raises(ValueError, match=message):
            check_batch(batch, vocab=19, most_tokens=64)

    def test_an_answer_of_no_tokens(self) -> None:
        batch = small.batch()
        batch.prompt_tokens[4] = batch.lengths[4]
        with pytest.raises(ValueError, match="rollout 104: its answer is empty"):
            check_batch(batch, vocab=19, most_tokens=64)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_packed_attention_equals_each_sequence_by_itself(kv_heads: int) -> None:
    batch = small.batch(sequences=9, seed=3)
    packing = micro_batch_of(batch, np.zeros(len(batch.tokens), np.float32), range(9), CPU).packing
    generator = torch.Generator().manual_seed(0)
    tokens = len(batch.tokens)
    shapes = ((tokens, 1, 4, 8), (tokens, 1, kv_heads, 8), (tokens, 1, kv_heads, 8))
    query, key, value = (
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in shapes
    )
    found = PackedAttention()(query, key, value, None, packed_seq_params=packing)
    wanted = []
    for first, last in zip(packing.ends[:-1], packing.ends[1:], strict=True):
        q, k, v = (x[first:last, 0].transpose(0, 1) for x in (query, key, value))
        k, v = (x.repeat_interleave(4 // kv_heads, 0) for x in (k, v))
        scores = q @ k.transpose(1, 2) / 8**0.5
        mask = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
        out = scores.masked_fill(mask, -torch.inf).softmax(-1) @ v
        wanted.append(out.transpose(0, 1).reshape(len(q[0]), 1, -1))
    torch.testing.assert_close(found, torch.cat(wanted))
    weights = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    inputs = (query, key, value)
    torch.testing.assert_close(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((torch.cat(wanted) * weights).sum(), inputs),
    )


def test_equal_lengths_attend_in_one_group() -> None:
    batch = small.batch(sequences=4)
    alike = [0, 0, 0]
    packing = micro_batch_of(batch, np.zeros(len(batch.tokens), np.float32), alike, CPU).packing
    assert len(packing.groups) == 1
    x = torch.randn(int(packing.ends[-1]), 2, 4)
    out = grouped_attention(x, x, x, packing)
    assert out.shape == x.shape


class _Alone:
    """A process group of one."""

    @staticmethod
    def size() -> int:
        return 1

    @staticmethod
    def rank() -> int:
        return 0


class TestLogProbabilities:
    def test_equal_torch_with_gradients(self) -> None:
        generator = torch.Generator().manual_seed(1)
        logits = torch.randn(7, 11, generator=generator, dtype=torch.float64) * 5
        logits.requires_grad_()
        targets = torch.randint(0, 11, (7,), generator=generator)
        found = vocab_parallel_logprobs(logits, targets, 0, _Alone())
        logs = torch.log_softmax(logits, -1)
        wanted = (logs.gather(1, targets[:, None])[:, 0], -(logs.exp() * logs).sum(-1))
        torch.testing.assert_close(found, wanted)
        weights = torch.randn(2, 7, generator=generator, dtype=torch.float64)
        for a, b in ((1.0, 0.0), (0.0, 1.0), (1.0, -0.3)):
            sums = [
                sum(c * (w * x).sum() for c, w, x in zip((a, b), weights, pair, strict=True) if c)
                for pair in (found, wanted)
            ]
            of_found, of_wanted = (
                torch.autograd.grad(total, logits, retain_graph=True)[0]
                for total in sums
                if isinstance(total, torch.Tensor)
            )
            torch.testing.assert_close(of_found, of_wanted)

    def test_logits_far_apart(self) -> None:
        logits = torch.tensor([[0.0, 1e4, -1e4]], requires_grad=True)
        logprobs, entropy = vocab_parallel_logprobs(logits, torch.tensor([2]), 0, _Alone())
        assert logprobs.item() == -2e4
        assert entropy.item() == 0.0
        (logprobs.sum() + entropy.sum()).backward()
        assert logits.grad is not None
        assert logits.grad.tolist() == [[0.0, -1.0, 1.0]]

    @pytest.mark.parametrize("temperature", [1.0, 0.5])
    def test_rows_that_fill_the_vocabulary_up_have_no_probability(self, temperature: float) -> None:
        weight = torch.nn.Parameter(torch.randn(6, 4))
        layer = SimpleNamespace(tp_group=_Alone(), weight=weight)

        class Layer(torch.nn.Module):
            tp_group = layer.tp_group

            def __init__(self) -> None:
                super().__init__()
                self.weight = weight

            def forward(self, hidden: torch.Tensor, weight: object) -> tuple[torch.Tensor, None]:
                assert weight is None
                return hidden @ self.weight.T, None

        hidden, targets = torch.randn(3, 1, 4), torch.tensor([0, 4, 2])
        found, entropy = token_logprobs(
            hidden, Layer(), None, targets, vocab=5, temperature=temperature
        )
        logs = torch.log_softmax(hidden[:, 0] @ weight[:5].T / temperature, -1)
        torch.testing.assert_close(found, logs.gather(1, targets[:, None])[:, 0])
        torch.testing.assert_close(entropy, -(logs.exp() * logs).sum(-1))
        (found.sum() + entropy.sum()).backward()
        assert weight.grad is not None
        assert (weight.grad[5] == 0).all()


class TestFiles:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_written_tensor_by_tensor(self, tmp_path: Path, dtype: torch.dtype) -> None:
        tensors = {"a": torch.randn(3, 5), "b.c": torch.randn(4), "d": torch.randn(1, 1, 2)}
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        writer = TensorWriter(tmp_path / SINGLE, shapes, dtype)
        for name, tensor in tensors.items():
            writer.write(name, tensor)
        writer.finish(durable=True)
        found = load_file(tmp_path / SINGLE)
        assert found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert torch.equal(found[name], tensor.to(dtype))

    def test_order_and_number_matter(self, tmp_path: Path) -> None:
        writer = TensorWriter(tmp_path / SINGLE, {"a": (2,), "b": (3,)}, torch.float32)
        with pytest.raises(ValueError, match=r"b \(3,\) where a \(2,\) is due"):
            writer.write("b", torch.zeros(3))
        writer.abandon()
        writer = TensorWriter(tmp_path / SINGLE, {"a": (2,), "b": (3,)}, torch.float32)
        writer.write("a", torch.zeros(2))
        with pytest.raises(ValueError, match="b was not written"):
            writer.finish(durable=False)
        writer.abandon()

    def test_a_missing_tensor(self, tmp_path: Path) -> None:
        save_file({"a": torch.zeros(2)}, tmp_path / SINGLE)
        with pytest.raises(ConfigError, match="there is no tensor b"):
            TensorFolder(tmp_path, {"a": (2,), "b": (1,)})

    def test_another_shape(self, tmp_path: Path) -> None:
        save_file({"a": torch.zeros(2)}, tmp_path / SINGLE)
        with pytest.raises(ConfigError, match=r"a has shape \(2,\), config.json makes it \(3,\)"):
            TensorFolder(tmp_path, {"a": (3,)})

    def test_broken_files(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=SINGLE):
            TensorFolder(tmp_path, {"a": (2,)})
        (tmp_path / SINGLE).write_bytes(b"nothing")
        with pytest.raises(ConfigError, match=SINGLE):
            TensorFolder(tmp_path, {"a": (2,)})
        (tmp_path / INDEX).write_text("{}")
        with pytest.raises(ConfigError, match=INDEX):
            TensorFolder(tmp_path, {"a": (2,)})


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("model", sorted(small.MODELS))
def test_slots_split_and_join(tmp_path: Path, model: str, ranks: int) -> None:
    architecture = Architecture.read(small.write_config(tmp_path, **small.MODELS[model]))
    shapes = all_shapes(architecture)
    source = RandomTensors(shapes, seed=1, std=1.0)
    parameters = ["embedding.word_embeddings.weight", "decoder.final_layernorm.weight"]
    if not architecture.tied:
        parameters.append("output_layer.weight")
    layer = (
        "input_layernorm.weight",
        "pre_mlp_layernorm.weight",
        "self_attention.linear_qkv.weight",
        "self_attention.linear_qkv.bias",
        "self_attention.linear_proj.weight",
        "mlp.linear_fc1.weight",
        "mlp.linear_fc2.weight",
    )
    for number in range(architecture.layers):
        parameters += [f"decoder.layers.{number}.{name}" for name in layer]
    of_ranks = []
    for rank in range(ranks):
        place: Any = SimpleNamespace(
            tensor=rank, tensor_parallel=ranks, pipeline=0, pipeline_parallel=1
        )
        of_ranks.append(list(slots_of(architecture, place, parameters)))
    found = {}
    for slots in zip(*of_ranks, strict=True):
        parts = [slot.read(source) for slot in slots]
        if ranks == 1 or slots[0].split:
            found |= slots[0].whole(parts)
        else:
            assert torch.equal(parts[0], parts[1])
            found |= slots[0].whole(parts[:1])
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == shapes
    for name, tensor in found.items():
        assert torch.equal(tensor, source.rows(name, 0, shapes[name][0])), name
