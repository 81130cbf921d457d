"""Tests as the public sets write them, programs cut out of answers, and verdicts."""

import json
import re

import pytest

from areal_real.rewards.code import Case, Suite, extract_program, judge, parse_tests, score
from areal_real.rewards.sandbox.box import Limits, Sandbox

LIMITS = Limits(cpu_s=10, wall_s=60)


@pytest.mark.parametrize(
    ("reference", "suite"),
    [
        ({"inputs": ["1\n"], "outputs": ["2\n"]}, Suite((Case("1\n", "2\n"),))),
        ({"inputs": [["1", "2"]], "outputs": [["3"]]}, Suite((Case("1\n2", "3"),))),
        (
            {"inputs": [[1, [2]]], "outputs": [[3]], "fn_name": "f"},
            Suite((Case([1, [2]], [3]),), "f"),
        ),
        (
            {"inputs": ['[1, 2]\n"a"'], "outputs": ["true"], "fn_name": "f"},
            Suite((Case([[1, 2], "a"], True),), "f"),
        ),
        ([{"input": "1", "output": "2", "testtype": "stdin"}], Suite((Case("1", "2"),))),
        (
            [
                {
                    "input": "1\n2",
                    "output": "3",
                    "testtype": "functional",
                    "metadata": {"func_name": "f"},
                }
            ],
            Suite((Case([1, 2], 3),), "f"),
        ),
        (
            [{"input": "1", "output": "3", "testtype": "functional", "fn_name": "f"}],
            Suite((Case([1], 3),), "f"),
        ),
    ],
)
def test_public_forms_are_read(reference: object, suite: Suite) -> None:
    assert parse_tests(json.dumps(reference)) == suite


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nothing", "tests are not JSON"),
        ("3", "neither an object nor a list: '3'"),
        ("[]", "empty list"),
        ("{}", 'need the lists "inputs" and "outputs"'),
        ('{"assert_case": ["assert f(1) == 2"]}', "not ['assert_case']"),
        ('{"inputs": ["1"], "outputs": []}', "1 inputs and 0 outputs"),
        ('{"inputs": [], "outputs": []}', "0 inputs and 0 outputs"),
        ('{"inputs": [1], "outputs": ["1"]}', "not text: '1'"),
        ('{"inputs": [[1]], "outputs": [1], "fn_name": "os.system(1)"}', "'os.system(1)'"),
        ('{"inputs": [1], "outputs": [1], "fn_name": "f"}', "neither a list nor text: '1'"),
        ('{"inputs": ["x y"], "outputs": ["1"], "fn_name": "f"}', "are not JSON"),
        ('[{"input": "1"}]', 'test 0 needs "input" and "output"'),
        ('[{"input": "1", "output": "1", "testtype": "file"}]', "unknown testtype 'file'"),
        ('[{"input": "1", "output": "1", "testtype": "functional"}]', "fn_name"),
        (
            '[{"input": "1", "output": "1"},'
            ' {"input": "1", "output": "1", "testtype": "functional", "fn_name": "f"}]',
            "tests mix",
        ),
        ("[" * 100_000, "tests are not JSON"),
    ],
)
def test_other_tests_are_refused(reference: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_tests(reference)


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("print(1)", "print(1)"),
        ("So:\n```python\nprint(1)\n```\nDone.", "print(1)\n"),
        ("```\na\n```\nbetter:\n```py\nb\n```", "b\n"),
        ("```python\na\n```\nand then\n```python\nunfinished", "a\n"),
        ("inline ```x``` only", "inline ```x``` only"),
        ("  ```python\n  a\n  ```", "  a\n"),
    ],
)
def test_the_last_closed_block_is_the_program(answer: str, program: str) -> None:
    assert extract_program(answer) == program


RIGHT = {
    "exits": (
        'print(int(input()) + 1)\nexit()\nprint("never")',
        {"inputs": ["1"], "outputs": ["2"]},
    ),
    "main guard": (
        'import sys\ndef main():\n  print(sum(map(int, sys.stdin)))\nif __name__ == "__main__":\n'
        "  main()",
        {"inputs": ["1\n2\n3", "5"], "outputs": ["6", "5"]},
    ),
    "reads file 0": ("print(len(open(0).read()))", {"inputs": ["abc"], "outputs": ["3"]}),
    "umlauts": ("print(input().upper())", {"inputs": ["ä\n"], "outputs": ["Ä"]}),
    "class": (
        "class Solution:\n  def f(self, a: List[int]) -> int:\n"
        "    print('noise')\n    return max(a)",
        {"inputs": [[[1, 5, 3]], [[2]]], "outputs": [5, [2]], "fn_name": "f"},
    ),
    "function": (
        "def f(a, b):\n  return (a, [b])",
        {"inputs": [[1, "x"]], "outputs": [[1, ["x"]]], "fn_name": "f"},
    ),
    "names of the judge": (
        "def f(n):\n  return sqrt(n) + Counter('aa')['a'] + pow(2, 3, 5)",
        {"inputs": [[4]], "outputs": [7.0], "fn_name": "f"},
    ),
    "deep recursion": (
        "def f(n):\n  return n and 1 + f(n - 1)",
        {"inputs": [[20_000]], "outputs": [20_000], "fn_name": "f"},
    ),
    "no state between cases": (
        "class Solution:\n  def __init__(self): self.n = 0\n"
        "  def f(self):\n    self.n += 1\n    return self.n",
        {"inputs": [[], []], "outputs": [1, 1], "fn_name": "f"},
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_programs_pass(sandbox: Sandbox, name: str) -> None:
    program, tests = RIGHT[name]
    verdict = judge(sandbox, parse_tests(json.dumps(tests)), program, LIMITS)

    assert verdict.passed, verdict


@pytest.mark.parametrize(
    ("program", "case", "reason"),
    [
        ("print(input())", 1, "wrong output"),
        ("print(1 // (2 - int(input())))", 1, "error: ZeroDivisionError"),
        ("x = int(input())\nprint(x)\nassert x == 1", 1, "error: AssertionError"),
        ("while int(input()) != 1: pass", 0, "wrong output"),
    ],
)
def test_the_first_failing_case_is_named(
    sandbox: Sandbox, program: str, case: int, reason: str
) -> None:
    tests = Suite((Case("1", "1"), Case("2", "4"), Case("3", "9")))
    verdict = judge(sandbox, tests, program, LIMITS)

    assert not verdict.passed
    assert verdict.case == case
    assert verdict.reason.startswith(reason)


def test_calls_stop_at_the_first_that_raises(sandbox: Sandbox) -> None:
    tests = Suite((Case([1], 1), Case([0], 0), Case([2], 1)), "f")
    verdict = judge(sandbox, tests, "def f(a): return a // a", LIMITS)

    assert (verdict.passed, verdict.case) == (False, 1)
    assert verdict.reason.startswith("error: ZeroDivisionError")


def test_the_time_limit_holds_for_each_call(sandbox: Sandbox) -> None:
    """A loop in the first of many calls does not take the time of all."""
    tests = Suite(tuple(Case([n], n) for n in range(100)), "f")
    verdict = judge(sandbox, tests, "def f(n):\n  while True: pass", Limits(cpu_s=1, wall_s=60))

    assert (verdict.passed, verdict.case, verdict.reason) == (False, 0, "cpu")


def test_score_is_one_or_zero(sandbox: Sandbox) -> None:
    reference = json.dumps({"inputs": ["3"], "outputs": ["9"]})

    assert score(sandbox, reference, "```python\nprint(int(input()) ** 2)\n```", 60) == 1.0
    assert score(sandbox, reference, "```python\nprint(int(input()) * 2)\n```", 60) == 0.0
    assert score(sandbox, reference, "\ud800 I do not know", 60) == 0.0
