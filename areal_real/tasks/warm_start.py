"""The supervised warm start: batches of a task's demonstrations, at a falling learning rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from areal_real.tasks.arithmetic import Example
from areal_real.tasks.problem import Tokenizer
from areal_real.training.batch import Batch, Sample

PARTS = 20
"""The warm start comes in so many parts: few enough files, and the learning rate falls smoothly."""


@runtime_checkable
class Demonstrator(Protocol):
    """A task that can show how it is done, if not well."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the model that is trained."""

    def example(self, position: int) -> Example:
        """The demonstration at this position of an endless order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStartPart:
    """Some optimizer steps of the warm start.

    Attributes:
        batch: ``optimizer_steps`` minibatches of examples.
        learning_rate: of these steps.
        optimizer_steps: at least 1.
    """

    batch: Batch
    learning_rate: float
    optimizer_steps: int


def warm_start_parts(
    task: Demonstrator, *, steps: int, batch_sequences: int, learning_rate: float
) -> Iterator[WarmStartPart]:
    """The whole warm start, in order; every example is seen once.

    The learning rate falls linearly from part to part, to near 0: what the model then does on its
    own depends less on the last few examples.

    Args:
        task: shows examples.
        steps: optimizer steps in all.
        batch_sequences: examples of one step.
        learning_rate: of the first steps.
    """
    parts = min(PARTS, steps)
    for part in range(parts):
        first, last = steps * part // parts, steps * (part + 1) // parts
        yield WarmStartPart(
            batch=example_batch(task, first * batch_sequences, last * batch_sequences),
            learning_rate=learning_rate * (1 - part / parts),
            optimizer_steps=last - first,
        )


def example_batch(task: Demonstrator, first: int, last: int) -> Batch:
    """Examples at positions ``first`` to ``last - 1``; each answer ends with the end token."""
    samples = []
    for position in range(first, last):
        example = task.example(position)
        answer = [*task.tokenizer.encode(example.answer), task.tokenizer.eos_id]
        samples.append(
            Sample(
                rollout_id=position,
                group_id=position,
                prompt_ids=task.tokenizer.encode(example.prompt),
                response_ids=answer,
                behaviour_logprobs=np.zeros(len(answer), np.float32),
                versions=np.zeros(len(answer), np.int64),
                reward=0.0,
            )
        )
    return Batch.of(samples)
