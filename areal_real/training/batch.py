"""What one training step trains on, as it travels from the run to the trainer: a safetensors file.

No pickle, no padding: sequences lie end to end, cut at `lengths`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from areal_real.errors import BackendError

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One trajectory, or one example of the supervised warm start.

    Attributes:
        rollout_id, group_id: who it is.
        prompt_ids: tokens of the prompt.
        response_ids: tokens of the answer, R of them.
        behaviour_logprobs: float32 (R,), log-probability of each answer token under the weights
            that generated it, as the server reported it.
        versions: int64 (R,), the weights that generated each token, as the server reported it.
        reward: of the whole answer.
    """

    rollout_id: int
    group_id: int
    prompt_ids: Sequence[int]
    response_ids: Sequence[int]
    behaviour_logprobs: FloatArray
    versions: IntArray
    reward: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The samples of one step, N sequences with T tokens in all.

    Attributes:
        tokens: int64 (T,), prompt and answer of each sequence, end to end.
        lengths: int64 (N,), tokens of each sequence.
        prompt_tokens: int64 (N,), how many of them are the prompt.
        behaviour_logprobs: float32 (T,), at the place of the token they belong to; 0 in prompts.
        versions: int64 (T,), at the place of the token; -1 in prompts.
        rewards: float32 (N,).
        group_ids, rollout_ids: int64 (N,).
    """

    tokens: IntArray
    lengths: IntArray
    prompt_tokens: IntArray
    behaviour_logprobs: FloatArray
    versions: IntArray
    rewards: FloatArray
    group_ids: IntArray
    rollout_ids: IntArray

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Batch:
        """Lay samples end to end.

        Raises:
            ValueError: log-probabilities or versions do not match the answer's length.
        """
        tokens: list[int] = []
        logprobs: list[FloatArray] = []
        versions: list[IntArray] = []
        for sample in samples:
            count, prompt = len(sample.response_ids), len(sample.prompt_ids)
            if not len(sample.behaviour_logprobs) == len(sample.versions) == count:
                raise ValueError(
                    f"rollout {sample.rollout_id}: {count} tokens,"
                    f" {len(sample.behaviour_logprobs)} log-probabilities,"
                    f" {len(sample.versions)} versions"
                )
            tokens += sample.prompt_ids
            tokens += sample.response_ids
            logprobs += [np.zeros(prompt, np.float32), sample.behaviour_logprobs]
            versions += [np.full(prompt, -1, np.int64), sample.versions]
        return cls(
            tokens=np.asarray(tokens, np.int64),
            lengths=np.asarray([len(s.prompt_ids) + len(s.response_ids) for s in samples]),
            prompt_tokens=np.asarray([len(s.prompt_ids) for s in samples]),
            behaviour_logprobs=np.concatenate(logprobs).astype(np.float32),
            versions=np.concatenate(versions).astype(np.int64),
            rewards=np.asarray([s.reward for s in samples], np.float32),
            group_ids=np.asarray([s.group_id for s in samples]),
            rollout_ids=np.asarray([s.rollout_id for s in samples]),
        )

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def starts(self) -> IntArray:
        """int64 (N,), where each sequence begins in `tokens`."""
        return np.concatenate([[0], np.cumsum(self.lengths)[:-1]]).astype(np.int64)

    def save(self, path: Path) -> None:
        """Write the file; it is there whole or not at all.

        Raises:
            BackendError: the disk refuses it.
        """
        part = path.with_name(path.name + ".part")
        try:
            save_file({name: getattr(self, name) for name in self.__slots__}, part)
            part.replace(path)
        except (OSError, SafetensorError) as exc:
            part.unlink(missing_ok=True)
            raise BackendError(f"{path}: {exc}") from exc

    @classmethod
    def load(cls, path: Path) -> Batch:
        """Read what `save` wrote, and make sure that it is a batch: indices come from it.

        Raises:
            BackendError: it cannot be read, or its arrays are not those of a batch.
        """
        try:
            batch = cls(**load_file(path))
            batch._check()
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as exc:
            raise BackendError(f"{path}: no batch: {exc}") from exc
        return batch

    def _check(self) -> None:
        for names, dtype, count in (
            (("lengths", "prompt_tokens", "group_ids", "rollout_ids"), np.int64, len(self)),
            (("rewards",), np.float32, len(self)),
            (("tokens", "versions"), np.int64, self.tokens.size),
            (("behaviour_logprobs",), np.float32, self.tokens.size),
        ):
            for name in names:
                array = getattr(self, name)
                if array.dtype != dtype or array.shape != (count,):
                    raise ValueError(
                        f"{name} is {array.dtype} {array.shape}, not {np.dtype(dtype)} ({count},)"
                    )
        tokens, lengths, prompts = self.tokens, self.lengths, self.prompt_tokens
        # Each by itself first: a sum of huge numbers may come out right.
        if np.any((lengths < 1) | (lengths > tokens.size)) or lengths.sum() != tokens.size:
            raise ValueError(f"lengths do not cut {tokens.size} tokens into sequences")
        if np.any((prompts < 0) | (prompts > lengths)):
            raise ValueError("prompt_tokens are not within lengths")
        if np.any(tokens < 0):
            raise ValueError("a token is negative")
        for name in ("behaviour_logprobs", "rewards"):
            if not np.all(np.isfinite(getattr(self, name))):
                raise ValueError(f"{name} are not all finite")
