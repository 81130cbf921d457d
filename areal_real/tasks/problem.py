"""What a run trains on: problems with an answer that a program can check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

RewardKind = Literal["exact", "math", "code"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem.

    Attributes:
        problem_id: its name, for people.
        prompt: the text the model sees.
        kind: how an answer is judged: ``exact`` (the answer text equals the reference),
            ``math`` (equivalent expressions), ``code`` (the tests pass).
        reference: the right answer; for ``code`` the tests as JSON.
    """

    problem_id: str
    prompt: str
    kind: RewardKind
    reference: str


class Tokenizer(Protocol):
    """Text to token ids and back."""

    @property
    def vocab_size(self) -> int:
        """Ids are below this."""

    @property
    def eos_id(self) -> int:
        """The token that ends an answer."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text.

        Raises:
            ValueError: the text holds something there is no token for.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; the end token has none."""


class Task(Protocol):
    """Problems to train on and to be judged by."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the model that is trained."""

    def problem(self, position: int) -> Problem:
        """The training problem at this position of an endless order fixed by the seed.

        Random access, so that a resumed run goes on where it stopped.
        """

    def held_out(self) -> Sequence[Problem]:
        """Problems that are never trained on, the same in every run."""
