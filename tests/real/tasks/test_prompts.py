"""Prompt files: the forms that are understood, and errors that name file, line and field."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from areal_real.rewards.code import parse_tests
from areal_real.tasks.prompts import PromptSet, read_problems
from areal_real.tasks.tokenizer import FolderTokenizer
from areal_sched.errors import ConfigError
from tests.real.tasks.folders import write_tokenizer

TESTS = {"inputs": ["1\n"], "outputs": ["2\n"]}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_one(path: Path, row: dict[str, Any]) -> tuple[str, str, str, str]:
    (problem,) = read_problems(write(path / "set.jsonl", row))
    return problem.problem_id, problem.prompt, problem.kind, problem.reference


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        (
            {"id": "a", "prompt": "6 times 7?", "kind": "math", "answer": "42", "level": 3},
            ("a", "6 times 7?", "math", "42"),
        ),
        ({"prompt": "6 times 7?", "answer": 42}, ("set.jsonl:1", "6 times 7?", "math", "42")),
        (
            {"id": 7, "prompt": "Say yes.", "kind": "exact", "answer": "yes"},
            ("7", "Say yes.", "exact", "yes"),
        ),
        (
            {"id": "c", "prompt": "Add 1.", "tests": TESTS},
            ("c", "Add 1.", "code", json.dumps(TESTS)),
        ),
        (
            {"id": "c", "prompt": "Add 1.", "kind": "code", "tests": json.dumps(TESTS)},
            ("c", "Add 1.", "code", json.dumps(TESTS)),
        ),
        (
            {"question": "How many?", "answer": "2+3=<<2+3=5>>5\n2,000+5 #### 2,005"},
            ("set.jsonl:1", "How many?", "math", "2005"),
        ),
        (
            {"query_id": "q", "prompt": "How many?", "solutions": ["\\boxed{5}", "x"]},
            ("q", "How many?", "math", "\\boxed{5}"),
        ),
        (
            {"query_id": "q", "prompt": "Add 1.", "input_output": json.dumps(TESTS)},
            ("q", "Add 1.", "code", json.dumps(TESTS)),
        ),
    ],
)
def test_forms(tmp_path: Path, row: dict[str, Any], wanted: tuple[str, ...]) -> None:
    found = read_one(tmp_path, row)
    assert found == wanted
    if found[2] == "code":
        assert parse_tests(found[3]).cases[0].expected == "2\n"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "x"}, "field 'answer': is missing; there are prompt"),
        ({"answer": "5"}, "field 'prompt': is missing; there are answer"),
        ({"prompt": " ", "answer": "5"}, "field 'prompt': must be a text that is not blank"),
        ({"prompt": "x", "answer": ""}, "field 'answer': must be a text that is not blank, got ''"),
        ({"prompt": "x", "answer": True}, "field 'answer': must be a text that is not blank"),
        (
            {"prompt": "x", "answer": "5", "kind": "mth"},
            "field 'kind': is unknown (did you mean 'math'?), got 'mth'",
        ),
        ({"prompt": "x", "answer": "5", "kind": ["math"]}, "field 'kind': is unknown"),
        ({"prompt": "x", "kind": "code"}, "field 'tests': is missing; there are kind, prompt"),
        ({"prompt": "x", "tests": {"inputs": []}}, "field 'tests': tests need the lists"),
        ({"prompt": "x", "input_output": "{"}, "field 'input_output': tests are not JSON"),
        ({"prompt": "x", "solutions": []}, "field 'solutions': must be a list of texts, got []"),
        ({"prompt": "x", "solutions": [" "]}, "field 'solutions': the first must not be blank"),
        ({"question": "x", "answer": "5"}, "field 'answer': must end in '####' and a number"),
        ({"question": "x", "answer": "5 ####"}, "field 'answer': must end in '####'"),
        ({"id": None, "prompt": "x", "answer": "5"}, "field 'id': must be a text or a whole"),
        ({"messages": [], "answer": "5"}, "field 'messages': must be a list of messages"),
        ({"messages": ["x"], "answer": "5"}, "field 'messages': each needs the texts"),
        (
            {"messages": [{"role": "user", "content": "x"}], "answer": "5"},
            "field 'messages': needs a tokenizer",
        ),
        (
            {"messages": [{"role": "user", "content": "x"}], "prompt": "x", "answer": "5"},
            "field 'messages': stands beside 'prompt'",
        ),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    file = write(tmp_path / "set.jsonl", {"prompt": "first", "answer": "1"}, row)
    with pytest.raises(ConfigError) as caught:
        read_problems(file)
    assert str(caught.value).startswith(f"{file}:2: {message}")


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.jsonl: cannot be read: No such file"):
        read_problems(tmp_path / "none.jsonl")
    empty = write(tmp_path / "empty.jsonl")
    with pytest.raises(ConfigError, match=r"empty\.jsonl: holds no problem"):
        read_problems(empty)
    cut = tmp_path / "cut.jsonl"
    cut.write_text('{"prompt": "x", "answer": "5"}\n\n{"prompt": "y", "ans')
    with pytest.raises(ConfigError, match=r"cut\.jsonl:3: is not JSON; truncated\?"):
        read_problems(cut)
    listed = write(tmp_path / "list.jsonl", [1])
    with pytest.raises(ConfigError, match=r"list\.jsonl:1: must be a JSON object"):
        read_problems(listed)
    twice = write(tmp_path / "twice.jsonl", *[{"id": "a", "prompt": "x", "answer": "5"}] * 2)
    with pytest.raises(ConfigError, match=r"twice\.jsonl:2: field 'id': line 1 has it too"):
        read_problems(twice)


def test_a_gzipped_file(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"prompt": "x", "answer": "5"}\n'))
    assert read_problems(file)[0].prompt == "x"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> FolderTokenizer:
    template = "{{ messages[0].content }} ?"
    return FolderTokenizer(write_tokenizer(tmp_path_factory.mktemp("t"), chat_template=template))


def rows(count: int) -> list[dict[str, Any]]:
    return [{"id": f"p{i}", "prompt": f"what is {i}", "answer": str(i)} for i in range(count)]


def test_messages_become_a_prompt(tmp_path: Path, tokenizer: FolderTokenizer) -> None:
    row = {"messages": [{"role": "user", "content": "what is 6"}], "answer": "6"}
    (problem,) = read_problems(write(tmp_path / "chat.jsonl", row), tokenizer)
    assert problem.prompt == "what is 6 ?"


def test_every_pass_has_every_problem_once(tmp_path: Path, tokenizer: FolderTokenizer) -> None:
    file = write(tmp_path / "set.jsonl", *rows(20))
    task, again = (PromptSet.load(file, tokenizer, seed=3, held_out=5) for _ in range(2))
    assert [problem.problem_id for problem in task.held_out()] == [f"p{i}" for i in range(15, 20)]
    assert len(task) == 15
    passes = [[task.problem(15 * k + i).problem_id for i in range(15)] for k in range(3)]
    assert all(sorted(ids) == sorted(f"p{i}" for i in range(15)) for ids in passes)
    assert passes[0] != passes[1]
    # Any position, at once: a resumed run goes on where it stopped.
    assert again.problem(37).problem_id == passes[2][7]
    assert task.problem(0).problem_id == passes[0][0]
    other = PromptSet.load(file, tokenizer, seed=4, held_out=5)
    assert [other.problem(i).problem_id for i in range(15)] != passes[0]


def test_held_out_problems_are_not_trained_on(tmp_path: Path, tokenizer: FolderTokenizer) -> None:
    file = write(tmp_path / "set.jsonl", *rows(6))
    judged = write(tmp_path / "judged.jsonl", {"prompt": "what is 2", "answer": "2"})
    task = PromptSet.load(file, tokenizer, seed=1, held_out=judged)
    assert (len(task), task.left_out) == (5, 1)
    assert "p2" not in {task.problem(i).problem_id for i in range(20)}
    assert [problem.problem_id for problem in task.held_out()] == ["judged.jsonl:1"]
    # The same prompt twice in one file, once among the last.
    doubled = write(tmp_path / "doubled.jsonl", *rows(3), {"prompt": "what is 0", "answer": "0"})
    task = PromptSet.load(doubled, tokenizer, seed=1, held_out=1)
    assert {task.problem(i).problem_id for i in range(9)} == {"p1", "p2"}


def test_something_must_be_left(tmp_path: Path, tokenizer: FolderTokenizer) -> None:
    file = write(tmp_path / "set.jsonl", *rows(3))
    with pytest.raises(ConfigError, match=r"held_out_problems = 3: .* has 3 problems"):
        PromptSet.load(file, tokenizer, seed=1, held_out=3)
    with pytest.raises(ConfigError, match=r"set\.jsonl: all its problems are held out"):
        PromptSet.load(file, tokenizer, seed=1, held_out=file)
