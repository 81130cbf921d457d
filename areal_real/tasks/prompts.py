r"""Problems from JSONL files, one object a line; the file may be gzipped.

The form that others are turned into::

    {"id": "a-1", "prompt": "What is 6 times 7?", "kind": "math", "answer": "42"}
    {"id": "b-1", "prompt": "Say yes.", "kind": "exact", "answer": "yes"}
    {"id": "c-1", "prompt": "Write ...", "kind": "code", "tests": {"inputs": [...], "outputs": ...}}

``id`` may be left out: a line is then called by its file and number. ``kind`` may be left out: with
``tests`` it is ``code``, with ``answer`` ``math``. For the forms of ``tests`` see
`areal_real.rewards.code`. ``messages``, a list of ``{"role", "content"}``, may stand in place of
``prompt`` where the tokenizer has a chat template. Fields of other names are passed over.

Public sets that are understood as they are:

- GSM8K: ``{"question", "answer"}``; the answer is what stands behind ``####``.
- AReaL, math: ``{"prompt", "solutions": ["\\boxed{42}", ...]}``; the first solution counts.
- AReaL, code: ``{"prompt", "input_output": "{\"inputs\": ..., \"outputs\": ...}"}``.

Both of AReaL name a problem in ``query_id``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

from areal_real.rewards.code import parse_tests
from areal_real.tasks.problem import Problem, RewardKind
from areal_real.tasks.tokenizer import FolderTokenizer
from areal_sched.errors import ConfigError, nearest
from traces.errors import TraceError
from traces.textfiles import json_object, open_text

KINDS: tuple[RewardKind, ...] = get_args(RewardKind)
GSM8K_MARK = "####"
_SHOWN_CHARACTERS = 60


class PromptSet:
    """A task of problems that were read before.

    Args:
        problems: to train on, at least one.
        held_out: to be judged by.
        tokenizer: of the model.
        seed: of the order, which is another one in every pass.
        left_out: how many problems were not taken because they are held out.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        held_out: Sequence[Problem],
        tokenizer: FolderTokenizer,
        *,
        seed: int,
        left_out: int = 0,
    ) -> None:
        if not problems:
            raise ConfigError("real.task.file: no problem is left to train on")
        self._problems = tuple(problems)
        self._held_out = tuple(held_out)
        self._tokenizer = tokenizer
        self._seed = seed
        self.left_out = left_out
        self._order = lru_cache(maxsize=2)(self._new_order)

    @classmethod
    def load(
        cls, file: Path, tokenizer: FolderTokenizer, *, seed: int, held_out: Path | int
    ) -> PromptSet:
        """Read the files.

        Args:
            file: problems to train on.
            tokenizer: of the model; its chat template is used for ``messages``.
            seed: of the order.
            held_out: the file of the held-out problems, or how many of the last lines of ``file``
                they are. A problem of ``file`` with the prompt of one of them is left out.

        Raises:
            ConfigError: a file cannot be read or a line is wrong, named with file, line and field;
                or no problem would be left.
        """
        problems = read_problems(file, tokenizer)
        if isinstance(held_out, Path):
            judged = read_problems(held_out, tokenizer)
        elif held_out < len(problems):
            cut = len(problems) - held_out
            problems, judged = problems[:cut], problems[cut:]
        else:
            raise ConfigError(
                f"real.task.held_out_problems = {held_out}: {file} has {len(problems)} problems,"
                " and one to train on must be left"
            )
        taken = {problem.prompt for problem in judged}
        kept = [problem for problem in problems if problem.prompt not in taken]
        if not kept:
            raise ConfigError(f"{file}: all its problems are held out")
        return cls(kept, judged, tokenizer, seed=seed, left_out=len(problems) - len(kept))

    @property
    def tokenizer(self) -> FolderTokenizer:
        """Of the model that is trained."""
        return self._tokenizer

    def __len__(self) -> int:
        return len(self._problems)

    @property
    def kinds(self) -> frozenset[RewardKind]:
        """How its problems are judged, the held-out ones included."""
        return frozenset(problem.kind for problem in (*self._problems, *self._held_out))

    def problem(self, position: int) -> Problem:
        """The problem at this position of an endless order: pass after pass, each shuffled."""
        passes, place = divmod(position, len(self._problems))
        return self._problems[self._order(passes)[place]]

    def held_out(self) -> Sequence[Problem]:
        """Problems that are never trained on, the same in every run."""
        return self._held_out

    def _new_order(self, passes: int) -> list[int]:
        order: list[int] = (
            np.random.default_rng([self._seed, passes]).permutation(len(self._problems)).tolist()
        )
        return order


def read_problems(file: Path, tokenizer: FolderTokenizer | None = None) -> list[Problem]:
    """Read the problems of a JSONL file, in the order of its lines; blank lines are passed over.

    Args:
        file: see the module for what may stand in it.
        tokenizer: its chat template makes prompts of ``messages``; None: they are refused.

    Raises:
        ConfigError: the file cannot be read or has no problem, a line is wrong, or two problems
            have one id; the message names file, line and field.
    """
    problems: list[Problem] = []
    lines: dict[str, int] = {}
    for number, row in _rows(file):
        line = _Line(f"{file}:{number}", row)
        problem = Problem(
            problem_id=_id(line, f"{file.name}:{number}"),
            prompt=_prompt(line, tokenizer),
            **_judged_by(line)._asdict(),
        )
        if (earlier := lines.setdefault(problem.problem_id, number)) != number:
            raise line.wrong("id", f"line {earlier} has it too", problem.problem_id)
        problems.append(problem)
    if not problems:
        raise ConfigError(f"{file}: holds no problem")
    return problems


class _Judged(NamedTuple):
    kind: RewardKind
    reference: str


class _Line(NamedTuple):
    where: str
    row: dict[str, Any]

    def wrong(self, field: str, reason: str, *value: object) -> ConfigError:
        """What is wrong with a field; with its value, if one is given."""
        got = f", got {_shown(value[0])}" if value else ""
        return ConfigError(f"{self.where}: field {field!r}: {reason}{got}")

    def text(self, field: str) -> str:
        """A text that is not blank."""
        value = self.row.get(field)
        if field not in self.row:
            raise self.wrong(field, "is missing" + _fields(self.row))
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(field, "must be a text that is not blank", value)
        return value


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with open_text(file) as stream:
            for number, text in enumerate(stream, start=1):
                if text.strip():
                    yield number, json_object(file, number, text)
    except TraceError as exc:
        raise ConfigError(str(exc)) from None


def _id(line: _Line, otherwise: str) -> str:
    for field in ("id", "query_id"):
        if field in line.row:
            value = line.row[field]
            if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
                raise line.wrong(field, "must be a text or a whole number", value)
            return str(value)
    return otherwise


def _prompt(line: _Line, tokenizer: FolderTokenizer | None) -> str:
    if "messages" not in line.row:
        return line.text("question" if _is_gsm8k(line.row) else "prompt")
    messages = line.row["messages"]
    if "prompt" in line.row:
        raise line.wrong("messages", "stands beside 'prompt': one of both, please")
    if not isinstance(messages, list) or not messages:
        raise line.wrong("messages", "must be a list of messages", messages)
    for message in messages:
        known = isinstance(message, dict) and {"role", "content"} <= message.keys()
        if not known or not all(isinstance(value, str) for value in message.values()):
            raise line.wrong("messages", "each needs the texts 'role' and 'content'", message)
    if tokenizer is None:
        raise line.wrong("messages", "needs a tokenizer with a chat template")
    try:
        return tokenizer.chat(messages)
    except ValueError as exc:
        raise line.wrong("messages", str(exc)) from None


def _judged_by(line: _Line) -> _Judged:
    row = line.row
    if "solutions" in row and "answer" not in row:
        return _Judged("math", _first_solution(line))
    if "input_output" in row and "tests" not in row:
        return _Judged("code", _tests(line, "input_output"))
    if _is_gsm8k(row):
        _, mark, answer = line.text("answer").rpartition(GSM8K_MARK)
        if not mark or not answer.strip():
            raise line.wrong("answer", f"must end in {GSM8K_MARK!r} and a number", row["answer"])
        return _Judged("math", answer.strip().replace(",", ""))
    kind = row.get("kind", "code" if "tests" in row else "math")
    if kind not in KINDS:
        raise line.wrong("kind", f"is unknown{nearest(kind, KINDS)}", kind)
    if kind == "code":
        return _Judged("code", _tests(line, "tests"))
    if isinstance(row.get("answer"), int | float) and not isinstance(row["answer"], bool):
        return _Judged(kind, str(row["answer"]))
    return _Judged(kind, line.text("answer"))


def _is_gsm8k(row: dict[str, Any]) -> bool:
    return "question" in row and "prompt" not in row and "messages" not in row


def _first_solution(line: _Line) -> str:
    solutions = line.row["solutions"]
    if not isinstance(solutions, list) or not solutions or not isinstance(solutions[0], str):
        raise line.wrong("solutions", "must be a list of texts", solutions)
    if not solutions[0].strip():
        raise line.wrong("solutions", "the first must not be blank", solutions)
    return solutions[0]


def _tests(line: _Line, field: str) -> str:
    """Tests as JSON, given as text or as what the text would say."""
    if field not in line.row:
        raise line.wrong(field, "is missing" + _fields(line.row))
    value = line.row[field]
    text = value if isinstance(value, str) else json.dumps(value)
    try:
        parse_tests(text)
    except ValueError as exc:
        raise line.wrong(field, str(exc)) from None
    return text


def _fields(row: dict[str, Any]) -> str:
    return f"; there are {', '.join(sorted(row))}" if row else ""


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
