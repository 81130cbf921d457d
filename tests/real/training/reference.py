"""Run as a script: the same training in plain torch, on Hugging Face's Qwen2, un-packed.

Nothing of the trainer or of `areal_real.ppo` is used. Writes model folders and what comes out of
training them into the folder it is given.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from areal_real.training.batch import Batch
from tests.real.training import small


def main(out: Path) -> None:
    """Write everything."""
    _declare_operators()
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.set_num_threads(1)
    batch = small.batch()
    for name, changes in small.MODELS.items():
        torch.manual_seed(7)
        config = Qwen2Config(
            **small.SHAPE, **changes, rope_parameters={"rope_type": "default", "rope_theta": 1e4}
        )
        model = Qwen2ForCausalLM(config).float()
        with torch.no_grad():  # Hugging Face begins with biases 0 and norms 1: hide nothing
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        source = out / name
        # Two files and an index, as larger models have.
        model.save_pretrained(source, max_shard_size="60KB")
        for objective in ("decoupled", "naive"):
            _one_step(source, batch, out / f"{name}-{objective}", objective)
        _long(source, batch, out / f"{name}-long")
        _supervised(source, batch, out / f"{name}-supervised")


def _one_step(source: Path, batch: Batch, out: Path, objective: str) -> None:
    run = _Run(source, small.ONE_STEP, objective)
    told = run.train(batch)
    _write(out, run, {**told, "logprobs": run.first_logprobs}, gradients=True)


def _long(source: Path, batch: Batch, out: Path) -> None:
    run = _Run(source, small.LONG, "decoupled")
    told = [run.train(batch), run.train(batch)]
    _write(out, run, {"loss": [t["loss"] for t in told], "norm": [t["norm"] for t in told]})


def _supervised(source: Path, batch: Batch, out: Path) -> None:
    run = _Run(source, {**small.ONE_STEP, "learning_rate": small.LEARNING_RATE}, "decoupled")
    run.adam.zero_grad()
    logprobs, _ = run.logprobs(batch, range(len(batch)))
    loss = -torch.cat(logprobs).mean()
    loss.backward()
    run.step()
    _write(out, run, {"loss": float(loss)})


class _Run:
    def __init__(self, source: Path, options: dict[str, Any], objective: str) -> None:
        from transformers import Qwen2ForCausalLM

        self.model = Qwen2ForCausalLM.from_pretrained(source, dtype=torch.float32)
        self.options = options
        self.objective = objective
        self.steps = 0
        self.first_logprobs: dict[int, list[float]] = {}
        named = list(self.model.named_parameters())
        self.adam = torch.optim.AdamW(
            [
                {
                    "params": [p for n, p in named if p.dim() == 1 or n.endswith("bias")],
                    "weight_decay": 0.0,
                },
                {
                    "params": [p for n, p in named if p.dim() > 1 and not n.endswith("bias")],
                    "weight_decay": options.get("weight_decay", 0.0),
                },
            ],
            lr=options["learning_rate"],
            betas=(0.9, 0.95),
            eps=options["adam_eps"],
        )

    def logprobs(self, batch: Batch, numbers: Any) -> tuple[list[Tensor], list[Tensor]]:
        """Each sequence by itself."""
        found, entropies = [], []
        for number in numbers:
            start, length = int(batch.starts[number]), int(batch.lengths[number])
            prompt = int(batch.prompt_tokens[number])
            tokens = torch.from_numpy(batch.tokens[start : start + length])
            logits = self.model(tokens[None]).logits[0, prompt - 1 : -1]
            logs = torch.log_softmax(logits / self.options.get("temperature", 1.0), -1)
            found.append(logs.gather(1, tokens[prompt:, None])[:, 0])
            entropies.append(-(logs.exp() * logs).sum(-1))
        return found, entropies

    def train(self, batch: Batch) -> dict[str, Any]:
        """One training step, in double where sums are long."""
        answers = (batch.lengths - batch.prompt_tokens).astype(np.float64)
        advantages = batch.rewards.astype(np.float64)
        for group in np.unique(batch.group_ids):
            advantages[batch.group_ids == group] -= advantages[batch.group_ids == group].mean()
        advantages -= (advantages * answers).sum() / answers.sum()
        advantages /= np.sqrt((advantages**2 * answers).sum() / answers.sum())
        with torch.no_grad():
            proximal, _ = self.logprobs(batch, range(len(batch)))
        self.first_logprobs = {
            int(i): p.tolist() for i, p in zip(batch.rollout_ids, proximal, strict=True)
        }
        minibatches = np.array_split(np.arange(len(batch)), self.options.get("minibatches", 1))
        losses, norms = 0.0, []
        for numbers in minibatches:
            self.adam.zero_grad()
            total = torch.zeros(())
            logprobs, entropies = self.logprobs(batch, numbers)
            for number, logprob, entropy in zip(numbers, logprobs, entropies, strict=True):
                total = total + self._loss(
                    batch, number, logprob, entropy, proximal[number], advantages[number]
                )
            tokens = answers[numbers].sum()
            (total / tokens).backward()
            losses += float(total)
            norms.append(self.step())
        return {"loss": losses / answers.sum(), "norm": float(np.mean(norms))}

    def step(self) -> float:
        """Clip and step."""
        parameters = list(self.model.parameters())
        clip = self.options["grad_clip"] or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, clip))
        self.steps += 1
        warmup = self.options.get("warmup_steps", 0)
        for group in self.adam.param_groups:
            group["lr"] = self.options["learning_rate"] * min(1.0, self.steps / max(1, warmup))
        self.adam.step()
        return norm

    def _loss(
        self,
        batch: Batch,
        number: int,
        logprob: Tensor,
        entropy: Tensor,
        proximal: Tensor,
        advantage: float,
    ) -> Tensor:
        start, length = int(batch.starts[number]), int(batch.lengths[number])
        first = start + int(batch.prompt_tokens[number])
        behaviour = torch.from_numpy(batch.behaviour_logprobs[first : start + length])
        clip, cap = self.options.get("clip", 0.2), self.options.get("behaviour_weight_cap", 5.0)
        old = proximal if self.objective == "decoupled" else behaviour
        ratio = (logprob - old).exp()
        gain = torch.minimum(ratio * advantage, ratio.clip(1 - clip, 1 + clip) * advantage)
        if self.objective == "decoupled":
            weight = (proximal - behaviour).exp()
            gain = gain * weight * (weight <= cap)
        return -gain.sum() - self.options.get("entropy_coefficient", 0.0) * entropy.sum()


def _write(out: Path, run: _Run, told: dict[str, Any], *, gradients: bool = False) -> None:
    out.mkdir()
    named = list(run.model.named_parameters())
    save_file({n: p.detach().contiguous() for n, p in named}, out / "weights.safetensors")
    if gradients:
        found = {n: p.grad.contiguous() for n, p in named if p.grad is not None}
        save_file(found, out / "gradients.safetensors")
    (out / "told.json").write_text(json.dumps(told))


def _declare_operators() -> None:
    """A torchvision for CUDA beside a torch for CPU lacks operators that transformers imports."""
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        globals()["_library"] = library  # operators live as long as it does


if __name__ == "__main__":
    main(Path(sys.argv[1]))
