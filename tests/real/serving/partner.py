"""Stands in for the trainer in a process of its own: Hugging Face models, and the real broadcaster.

Reads commands as JSON lines, answers each with a JSON line. Keeps torch and transformers, and the
warnings of their imports, out of the test process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

_DECLARED = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):  # see areal_real/serving/cpu_launcher.py
    _DECLARED.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from transformers import Qwen2Config, Qwen2ForCausalLM  # noqa: E402

from areal_real.serving.broadcast import Broadcaster  # noqa: E402
from areal_real.training.flat import Bucket, Flattener  # noqa: E402

BUCKET_BYTES = 50_000  # several buckets, one of them a single tensor that is larger

_models: dict[str, Any] = {}
_groups: dict[str, Broadcaster] = {}


def make(folder: str, seed: int, **config: Any) -> None:
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(Qwen2Config(**config)).float()
    model.save_pretrained(folder)


def _model(folder: str) -> Any:
    if folder not in _models:
        _models[folder] = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return _models[folder]


def logprobs(folder: str, ids: list[int], temperature: float) -> list[float]:
    """Of each token but the first, given those before it."""
    with torch.no_grad():
        logits = _model(folder)(torch.tensor([ids])).logits[0, :-1]
    told = torch.log_softmax(logits / temperature, dim=-1)
    return [float(told[at, token]) for at, token in enumerate(ids[1:])]


def kept_logprobs(old: str, new: str, ids: list[int], kept: int, temperature: float) -> list[float]:
    """Of the tokens after ``ids[kept]``, by the new model on KV that the old one left of the
    first `kept` tokens."""
    with torch.no_grad():
        cache = _model(old)(torch.tensor([ids[:kept]]), use_cache=True).past_key_values
        out = _model(new)(torch.tensor([ids[kept:]]), past_key_values=cache, use_cache=True)
    told = torch.log_softmax(out.logits[0, :-1] / temperature, dim=-1)
    return [float(told[at, token]) for at, token in enumerate(ids[kept + 1 :])]


def greedy(folder: str, ids: list[int], count: int) -> list[int]:
    ids = list(ids)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(_model(folder)(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[-count:]


def _flat(folder: str) -> tuple[Bucket, ...]:
    flattener = Flattener(BUCKET_BYTES)
    for name, tensor in _model(folder).state_dict().items():
        flattener.add(name, tensor)
    return flattener.finish()


def buckets(folder: str) -> list[list[tuple[str, str, list[int]]]]:
    return [
        [(name, str(x.dtype).removeprefix("torch."), list(x.shape)) for name, x in bucket.tensors()]
        for bucket in _flat(folder)
    ]


def listen(group: str, world_size: int) -> int:
    _groups[group] = Broadcaster(group, world_size, timeout_s=60)
    return _groups[group].port


def join(group: str) -> None:
    _groups[group].join()


def send(group: str, folder: str) -> None:
    _groups[group].send(bucket.flat for bucket in _flat(folder))


def leave(group: str) -> None:
    _groups.pop(group).close()


def main() -> None:
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = {"value": globals()[command["call"]](**command["arguments"])}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=_answers, flush=True)


if __name__ == "__main__":
    _answers = sys.stdout
    sys.stdout = sys.stderr
    torch.set_num_threads(1)
    main()
