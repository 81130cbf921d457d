"""The tiny model's folder, the warm start's batches, and the task a configuration asks for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from areal_real.config import parse_config
from areal_real.tasks.arithmetic import Arithmetic
from areal_real.tasks.build import make_task
from areal_real.tasks.model import TINY, TinyShape, write_model
from areal_real.tasks.prompts import PromptSet
from areal_real.tasks.warm_start import PARTS, Demonstrator, warm_start_parts
from areal_real.training.architecture import Architecture
from areal_real.training.slots import all_shapes
from areal_sched.errors import ConfigError
from tests.real.tasks.folders import write_tokenizer

TASK = Arithmetic(seed=1, held_out_problems=20)


def test_the_folder_is_what_the_trainer_takes(tmp_path: Path) -> None:
    write_model(tmp_path / "m", vocab_size=36, eos_id=0, seed=1)
    architecture = Architecture.read(tmp_path / "m")
    assert (architecture.vocab, architecture.layers) == (36, TINY.layers)
    architecture.check_layout(tensor_parallel=2, pipeline_parallel=2)
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    wanted = {name: tuple(shape) for name, shape in all_shapes(architecture).items()}
    assert {name: tensor.shape for name, tensor in tensors.items()} == wanted
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}


def test_the_seed_fixes_the_weights(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        write_model(tmp_path / name, vocab_size=36, eos_id=0, seed=seed)
    one, same, other = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "same", "other")
    )
    assert one == same != other


def test_another_shape(tmp_path: Path) -> None:
    shape = TinyShape(layers=4, hidden=32, ffn=48, heads=2, kv_heads=1, rope_base=5e3)
    write_model(tmp_path, vocab_size=10, eos_id=3, seed=1, shape=shape)
    architecture = Architecture.read(tmp_path)
    assert (architecture.layers, architecture.rope_base, architecture.head_dim) == (4, 5e3, 16)
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == 3


@pytest.mark.parametrize("steps", [0, 1, 7, PARTS, 45])
def test_the_warm_start_shows_every_example_once(steps: int) -> None:
    assert isinstance(TASK, Demonstrator)
    parts = list(warm_start_parts(TASK, steps=steps, batch_sequences=3, learning_rate=0.1))
    assert len(parts) == min(steps, PARTS)
    assert sum(part.optimizer_steps for part in parts) == steps
    shown = [int(i) for part in parts for i in part.batch.rollout_ids]
    assert shown == list(range(3 * steps))
    rates = [part.learning_rate for part in parts]
    assert all(len(part.batch) == 3 * part.optimizer_steps for part in parts)
    assert rates == sorted(rates, reverse=True)
    assert all(0 < rate <= 0.1 for rate in rates)
    assert not rates or rates[0] == 0.1


def test_an_example_in_the_batch() -> None:
    (part,) = warm_start_parts(TASK, steps=1, batch_sequences=2, learning_rate=0.1)
    prompt, answer = TASK.example(1)
    start, length = part.batch.starts[1], part.batch.lengths[1]
    ids = part.batch.tokens[start : start + length].tolist()
    assert TASK.tokenizer.decode(ids) == prompt + answer
    assert ids[-1] == TASK.tokenizer.eos_id
    assert part.batch.prompt_tokens[1] == len(prompt)


BASE = """\
[workload]
prompts_per_step = 4
group_size = 2
max_prompt_tokens = 40
max_response_tokens = 70
steps = 1
[limits]
eta = 1
[real.server]
kv_cache_tokens = 1024
[real.evaluation]
problems = 2
[real.task]
held_out_problems = 2
"""


def test_the_task_of_a_configuration(tmp_path: Path) -> None:
    task = make_task(parse_config(BASE, []))
    assert isinstance(task, Arithmetic)
    assert (task.max_answer_tokens, len(task.held_out())) == (51, 2)
    harder = make_task(parse_config(BASE, ["real.task.difficulty=3"]))
    assert isinstance(harder, Arithmetic)
    assert harder.max_answer_tokens == 67
    with pytest.raises(ConfigError, match=r"workload.max_prompt_tokens = 40: .* needs 51"):
        make_task(parse_config(BASE, ["real.task.difficulty=4"]))

    file = tmp_path / "set.jsonl"
    rows = [{"prompt": f"what is {i}", "answer": str(i)} for i in range(5)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = write_tokenizer(tmp_path / "model")
    changes = ['real.task.name="prompts"', f"real.task.file={json.dumps(str(file))}"]
    changes.append(f"real.model.path={json.dumps(str(folder))}")
    prompts = make_task(parse_config(BASE, changes))
    assert isinstance(prompts, PromptSet)
    assert (len(prompts), len(prompts.held_out())) == (3, 2)
    assert not isinstance(prompts, Demonstrator)
