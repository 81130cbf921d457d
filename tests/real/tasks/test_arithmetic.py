"""The built-in task: right answers, held-out problems, demonstrations."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from areal_real.rewards.exact import score
from areal_real.tasks.arithmetic import (
    LARGEST_NUMBER,
    LEVELS,
    MOST_HELD_OUT,
    Arithmetic,
    write_answer,
    write_prompt,
)
from areal_sched.errors import ConfigError

lists = st.lists(st.integers(1, LARGEST_NUMBER), min_size=1, max_size=24).flatmap(
    lambda numbers: st.tuples(st.integers(0, max(0, 99 - sum(numbers))), st.just(numbers))
)


@given(lists.filter(lambda drawn: sum(drawn[1]) <= 99))
def test_the_answer_holds_every_running_total(drawn: tuple[int, list[int]]) -> None:
    total, numbers = drawn
    prompt, answer = write_prompt([total, *numbers]), write_answer([total, *numbers])
    assert len(prompt) == 2 + 2 * len(numbers) + 1
    assert prompt.endswith("=")
    assert int(prompt[:2]) == int(answer[1::-1]) == total
    assert len(answer) == 2 + 4 * len(numbers)
    for place, number in enumerate(numbers):
        letter, copied, units, tens = answer[4 * place + 2 : 4 * place + 6]
        total += number
        assert letter + copied == prompt[2 * place + 2 : 2 * place + 4]
        assert int(tens + units) == total


def test_an_answer_by_hand() -> None:
    assert write_prompt([37, 6, 5, 4]) == "37a6b5c4="
    assert write_answer([37, 6, 5, 4]) == "73a634b584c425"
    assert write_answer([4, 1]) == "40a150"


def task(**options: int) -> Arithmetic:
    return Arithmetic(**{"seed": 1, "held_out_problems": 200} | options)  # type: ignore[arg-type]


@pytest.mark.parametrize("difficulty", range(1, len(LEVELS) + 1))
def test_problems_fit_and_differ_in_length(difficulty: int) -> None:
    hard = task(difficulty=difficulty)
    problems = [hard.problem(position) for position in range(400)] + list(hard.held_out())
    answers = [len(problem.reference) for problem in problems]
    prompts = [len(hard.tokenizer.encode(problem.prompt)) for problem in problems]
    # Every answer and the end token; the longest and the shortest list there can be are among them.
    assert (min(answers) + 1, max(answers) + 1) == (11, hard.max_answer_tokens)
    assert max(prompts) == hard.max_prompt_tokens
    for problem in problems:
        assert problem.kind == "exact"
        assert hard.tokenizer.decode(hard.tokenizer.encode(problem.reference)) == problem.reference
        assert score(problem.reference, problem.reference) == 1


def test_held_out_problems_are_the_same_in_every_run_and_never_trained_on() -> None:
    # So many that most short lists are held out.
    first, second = task(seed=1, held_out_problems=2000), task(seed=2, held_out_problems=500)
    held_out = [problem.prompt for problem in first.held_out()]
    assert [problem.prompt for problem in second.held_out()] == held_out[:500]
    assert len(set(held_out)) == 2000
    trained = {first.problem(position).prompt for position in range(2000)}
    shown = {first.example(position).prompt for position in range(2000)}
    assert not set(held_out) & (trained | shown)


def test_the_order_hangs_on_seed_and_position_alone() -> None:
    positions = [7, 0, 10**9, 7]
    one, same, other = task(), task(), task(seed=2)
    assert [one.problem(i) for i in positions] == [same.problem(i) for i in reversed(positions)][
        ::-1
    ]
    assert [one.example(i) for i in positions] == [same.example(i) for i in positions]
    assert [one.problem(i) for i in range(9)] != [other.problem(i) for i in range(9)]
    assert one.problem(5).prompt != one.example(5).prompt


def test_the_order_is_the_same_in_another_process() -> None:
    program = (
        "from areal_real.tasks.arithmetic import Arithmetic\n"
        "task = Arithmetic(seed=1, held_out_problems=5)\n"
        "print(task.problem(3).prompt, task.example(3), task.held_out()[4].prompt)"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    mine = task(held_out_problems=5)
    assert found == {f"{mine.problem(3).prompt} {mine.example(3)} {mine.held_out()[4].prompt}\n"}


@pytest.mark.parametrize("difficulty", [1, 2])
def test_demonstrations_forget_carries_and_nothing_else(difficulty: int) -> None:
    shown = task(difficulty=difficulty)
    right = carries = forgotten = 0
    for position in range(1000):
        prompt, answer = shown.example(position)
        first, numbers = int(prompt[:2]), [int(digit) for digit in prompt[3:-1:2]]
        assert len(answer) == 2 + 4 * len(numbers)
        right += answer == write_answer([first, *numbers])
        tens, units = divmod(first, 10)
        assert answer[:2] == f"{units}{tens}"
        for place, number in enumerate(numbers):
            letter, copied, new_units, new_tens = answer[4 * place + 2 : 4 * place + 6]
            assert letter + copied == prompt[2 * place + 2 : 2 * place + 4]
            carry, units = divmod(units + number, 10)
            assert int(new_units) == units
            assert int(new_tens) - tens in {0, carry}
            carries += carry
            forgotten += carry and int(new_tens) == tens
            tens = int(new_tens)
    assert forgotten / carries == pytest.approx(LEVELS[difficulty - 1].forgotten_carries, abs=0.03)
    # What a model that copies its teachers comes to: well below half.
    assert 0.05 < right / 1000 < 0.4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"difficulty": 0}, "real.task.difficulty = 0: must be 1 to 4"),
        ({"difficulty": 5}, "real.task.difficulty = 5: must be 1 to 4"),
        (
            {"held_out_problems": MOST_HELD_OUT + 1},
            "real.task.held_out_problems = 100001: must be 0 to 100000",
        ),
        ({"held_out_problems": -1}, "real.task.held_out_problems = -1: must be 0 to 100000"),
    ],
)
def test_bad_options_are_named(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        task(**options)
    assert str(caught.value) == message


def test_a_run_must_leave_room_for_the_longest_problem() -> None:
    task().check_room(max_prompt_tokens=27, max_response_tokens=51)
    with pytest.raises(ConfigError, match=r"workload.max_prompt_tokens = 26: .* needs 27"):
        task().check_room(max_prompt_tokens=26, max_response_tokens=51)
    with pytest.raises(ConfigError, match=r"workload.max_response_tokens = 50: .* needs 51"):
        task().check_room(max_prompt_tokens=27, max_response_tokens=50)
