"""The built-in task: running totals of a list of small numbers, written digit by digit.

``37a6b5c4=`` begins at 37 and asks for the total after each number. The answer is
``73a634b584c425``: the total to begin with, then for each number its letter, the number itself and
the total so far, every total with its units before its tens as one adds by hand (37, 43, 48, 52).
An answer is right if all of it is. It has four tokens per number, so answers differ in length
as the lists do, and the longest of a batch are waited for.

A model is warmed up on demonstrations by somebody who forgets the carry more often than not: when
the units pass 9 they begin anew, and the tens stay as they are. From these it can learn the form,
to add digits, and that a carry happens at times; that it is needed always, only the reward tells.
So it begins well below half right and has to learn the rest by trying.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import NamedTuple

from areal_real.tasks.problem import Problem
from areal_real.tasks.tokenizer import CharTokenizer
from areal_sched.errors import ConfigError

LETTERS = "abcdefghijklmnopqrstuvwx"
CHARACTERS = "0123456789=" + LETTERS


class Level(NamedTuple):
    """What a difficulty stands for.

    Attributes:
        most_numbers: of a list.
        forgotten_carries: share of the carries that a demonstration forgets. The more, the less
            likely a right answer is before training, and the longer it takes to become likely.
    """

    most_numbers: int
    forgotten_carries: float


LEVELS = (Level(12, 0.55), Level(12, 0.8), Level(16, 0.8), Level(24, 0.8))
"""By difficulty from 1."""

FEWEST_NUMBERS = 2
LARGEST_NUMBER = 6
LARGEST_TOTAL = 99
"""Two digits. 24 numbers have their mean at 84; a list that comes to more is drawn again."""

HELD_OUT_SEED = 20250524
"""Of the held-out problems, the same in every run whatever its seed."""

MOST_HELD_OUT = 100_000
"""Of far more lists than that, even of 12 numbers."""

List = tuple[int, ...]
"""The total to begin with, and the numbers to add."""


class Example(NamedTuple):
    """A prompt and an answer to learn from; the answer need not be right."""

    prompt: str
    answer: str


class Arithmetic:
    """See the module.

    Args:
        seed: of the order of problems and of the demonstrations.
        difficulty: 1 to 4, see `LEVELS`.
        held_out_problems: so many problems are held out. The first of more are those of fewer.

    Raises:
        ConfigError: ``difficulty`` or ``held_out_problems`` is out of range.
    """

    def __init__(self, *, seed: int, difficulty: int = 1, held_out_problems: int) -> None:
        if not 1 <= difficulty <= len(LEVELS):
            raise ConfigError(f"real.task.difficulty = {difficulty}: must be 1 to {len(LEVELS)}")
        if not 0 <= held_out_problems <= MOST_HELD_OUT:
            raise ConfigError(
                f"real.task.held_out_problems = {held_out_problems}: must be 0 to {MOST_HELD_OUT}"
            )
        self._seed = seed
        self._level = LEVELS[difficulty - 1]
        self._tokenizer = CharTokenizer(CHARACTERS)
        held_out = tuple(islice(self._held_out_lists(), held_out_problems))
        self._held_out = tuple(
            _problem(f"held-out-{number}", numbers) for number, numbers in enumerate(held_out)
        )
        self._held_out_set = frozenset(held_out)

    @property
    def tokenizer(self) -> CharTokenizer:
        """Of the model that is trained."""
        return self._tokenizer

    @property
    def max_prompt_tokens(self) -> int:
        """Tokens of the longest prompt."""
        return 2 + 2 * self._level.most_numbers + 1

    @property
    def max_answer_tokens(self) -> int:
        """Tokens of the longest right answer, the end token included."""
        return 2 + 4 * self._level.most_numbers + 1

    def check_room(self, *, max_prompt_tokens: int, max_response_tokens: int) -> None:
        """Check that the longest problem fits into the limits of a run.

        Raises:
            ConfigError: it does not.
        """
        for key, has, needs in (
            ("max_prompt_tokens", max_prompt_tokens, self.max_prompt_tokens),
            ("max_response_tokens", max_response_tokens, self.max_answer_tokens),
        ):
            if has < needs:
                raise ConfigError(
                    f"workload.{key} = {has}: the longest problem of this difficulty needs {needs}"
                )

    def problem(self, position: int) -> Problem:
        """The training problem at this position of an endless order fixed by the seed."""
        numbers = self._new_list(self._random("problem", position))
        return _problem(f"train-{position}", numbers)

    def held_out(self) -> Sequence[Problem]:
        """Problems that are never trained on, the same in every run."""
        return self._held_out

    def example(self, position: int) -> Example:
        """The demonstration at this position of an endless order; most of its carries are missing.

        No demonstration is of a held-out problem.
        """
        rng = self._random("example", position)
        numbers = self._new_list(rng)
        answer = _answer(numbers, rng, self._level.forgotten_carries)
        return Example(write_prompt(numbers), answer)

    def _random(self, purpose: str, position: int) -> random.Random:
        # A text is hashed the same way in every process.
        return random.Random(f"{self._seed}/{purpose}/{position}")

    def _new_list(self, rng: random.Random) -> List:
        while True:
            numbers = self._draw(rng)
            if numbers not in self._held_out_set:
                return numbers

    def _held_out_lists(self) -> Iterator[List]:
        seen: set[List] = set()
        for number in count():
            numbers = self._draw(random.Random(f"{HELD_OUT_SEED}/{number}"))
            if numbers not in seen:
                seen.add(numbers)
                yield numbers

    def _draw(self, rng: random.Random) -> List:
        length = rng.randint(FEWEST_NUMBERS, self._level.most_numbers)
        while True:
            numbers = tuple(rng.randint(1, LARGEST_NUMBER) for _ in range(length))
            if (room := LARGEST_TOTAL - sum(numbers)) >= 0:
                return (rng.randint(0, room), *numbers)


def write_prompt(numbers: Sequence[int]) -> str:
    """The question: the total to begin with, and each number after its letter."""
    first, *rest = numbers
    pairs = zip(LETTERS, rest, strict=False)
    return f"{first:02d}" + "".join(f"{letter}{number}" for letter, number in pairs) + "="


def write_answer(numbers: Sequence[int]) -> str:
    """The right answer."""
    return _answer(numbers, None, 0.0)


def _answer(numbers: Sequence[int], rng: random.Random | None, forgotten: float) -> str:
    first, *rest = numbers
    tens, units = divmod(first, 10)
    parts = [f"{units}{tens}"]
    for letter, number in zip(LETTERS, rest, strict=False):
        carry, units = divmod(units + number, 10)
        if carry and rng is not None and rng.random() < forgotten:
            carry = 0
        tens += carry
        parts.append(f"{letter}{number}{units}{tens}")
    return "".join(parts)


def _problem(problem_id: str, numbers: Sequence[int]) -> Problem:
    return Problem(
        problem_id=problem_id,
        prompt=write_prompt(numbers),
        kind="exact",
        reference=write_answer(numbers),
    )
