"""Answers that are Python programs: they run in the sandbox, and all their tests must pass.

Tests are JSON, in the forms of the public sets:

- APPS, TACO, PRIME, AReaL: ``{"inputs": [...], "outputs": [...]}`` are texts for standard input and
  output (a list is lines); with ``"fn_name"`` too, inputs are argument lists and outputs results.
- LiveCodeBench, DeepCoder: a list of ``{"input", "output", "testtype": "stdin" | "functional"}``;
  functional ones hold JSON, one argument a line, and name the function in ``"fn_name"`` or
  ``"metadata": {"func_name"}``.

Sets that test by assertions run after the answer, in its own process, are refused: such an answer
can switch its tests off.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from areal_real.rewards.outputs import parse_result, printed_alike, returned_alike
from areal_real.rewards.sandbox.box import Limits, Outcome, Sandbox

# A fence of any language; the last block that is closed is the answer, as in AReaL's reward.
_BLOCK = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
# Of the pool's time-out: so that a program that never ends is judged before its judge is killed.
_WALL_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Case:
    """One test.

    Attributes:
        given: text of standard input, or the arguments of a call.
        expected: text of standard output, or the result.
    """

    given: Any
    expected: Any


@dataclass(frozen=True, slots=True)
class Suite:
    """The tests of a problem; with ``fn_name`` they call that function."""

    cases: tuple[Case, ...]
    fn_name: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether all tests passed, and if not, which failed how.

    Attributes:
        passed: all of them did.
        case: position of the first that did not.
        reason: why, for people.
    """

    passed: bool
    case: int | None = None
    reason: str = ""


def parse_tests(reference: str) -> Suite:
    """Read the tests of a problem.

    Raises:
        ValueError: what is wrong with them.
    """
    try:
        data = json.loads(reference)
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"tests are not JSON: {exc}") from exc
    if isinstance(data, list):
        return _from_list(data)
    if not isinstance(data, dict):
        raise ValueError(f"tests are neither an object nor a list: {reference[:80]!r}")
    inputs, outputs = data.get("inputs"), data.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list):
        raise ValueError(f'tests need the lists "inputs" and "outputs", not {sorted(data)}')
    if len(inputs) != len(outputs) or not inputs:
        raise ValueError(f"tests have {len(inputs)} inputs and {len(outputs)} outputs")
    fn_name = data.get("fn_name")
    if fn_name is None:
        pairs = zip(inputs, outputs, strict=True)
        return Suite(tuple(Case(_text(given), _text(expected)) for given, expected in pairs))
    return Suite(tuple(map(_call, inputs, outputs)), _name(fn_name))


def extract_program(answer: str) -> str:
    """The last fenced block of an answer, or all of it where there is none."""
    blocks: list[str] = _BLOCK.findall(answer)
    return blocks[-1] if blocks else answer


def judge(sandbox: Sandbox, tests: Suite, program: str, limits: Limits) -> Verdict:
    """Run a program on its tests, up to the first that fails.

    Raises:
        SandboxFailed: the sandbox did not start.
    """
    if tests.fn_name is not None:
        return _judge_calls(sandbox, tests, tests.fn_name, program, limits)
    for number, case in enumerate(tests.cases):
        outcome = sandbox.run_program(program, case.given.encode(), limits)
        if outcome.ending != "done":
            return Verdict(False, number, _reason(outcome))
        if not printed_alike(case.expected, outcome.stdout.decode(errors="replace")):
            return Verdict(False, number, "wrong output")
    return Verdict(True)


def score(sandbox: Sandbox, reference: str, answer: str, timeout_s: float) -> float:
    """1.0 if the program in the answer passes all tests, else 0.0.

    Args:
        sandbox: where it runs.
        reference: tests as JSON.
        answer: the whole text of the model.
        timeout_s: when the caller gives up; no single run takes longer than most of that.

    Raises:
        ValueError: the tests cannot be read.
        SandboxFailed: the sandbox did not start.
    """
    usual = Limits()
    limits = Limits(wall_s=min(usual.wall_s, _WALL_SHARE * timeout_s))
    verdict = judge(sandbox, parse_tests(reference), extract_program(answer), limits)
    return float(verdict.passed)


def _judge_calls(
    sandbox: Sandbox, tests: Suite, fn_name: str, program: str, limits: Limits
) -> Verdict:
    arguments = [case.given for case in tests.cases]
    outcome = sandbox.run_calls(program, fn_name, arguments, limits)
    lines = outcome.stdout.splitlines()
    if len(lines) > len(tests.cases):
        return Verdict(False, None, "more results than calls")
    for number, (case, line) in enumerate(zip(tests.cases, lines, strict=False)):
        readable, result = parse_result(line)
        if not readable or not _result_alike(case.expected, result):
            return Verdict(False, number, "wrong result")
    if len(lines) < len(tests.cases) or outcome.ending != "done":
        return Verdict(False, len(lines), _reason(outcome))
    return Verdict(True)


def _result_alike(expected: object, result: object) -> bool:
    try:
        if returned_alike(expected, result):
            return True
        # APPS and TACO write some results in a list of their own.
        if not isinstance(expected, list) or len(expected) != 1:
            return False
        return returned_alike(expected[0], result)
    except RecursionError:
        return False


def _reason(outcome: Outcome) -> str:
    return f"{outcome.ending}: {outcome.error}" if outcome.error else outcome.ending


def _from_list(data: Sequence[Any]) -> Suite:
    if not data:
        raise ValueError("tests are an empty list")
    cases: list[Case] = []
    names: set[str | None] = set()
    for number, entry in enumerate(data):
        if not isinstance(entry, dict) or not {"input", "output"} <= entry.keys():
            raise ValueError(f'test {number} needs "input" and "output": {str(entry)[:80]!r}')
        kind = entry.get("testtype", "stdin")
        if kind == "functional":
            metadata = entry.get("metadata") or {}
            names.add(_name(entry.get("fn_name") or metadata.get("func_name")))
            cases.append(_call(entry["input"], entry["output"]))
        elif kind == "stdin":
            names.add(None)
            cases.append(Case(_text(entry["input"]), _text(entry["output"])))
        else:
            raise ValueError(f"test {number} has the unknown testtype {kind!r}")
    if len(names) > 1:
        raise ValueError(f"tests mix standard input and functions: {sorted(map(str, names))}")
    return Suite(tuple(cases), names.pop())


def _text(value: object) -> str:
    if isinstance(value, list):
        return "\n".join(map(str, value))
    if not isinstance(value, str):
        raise ValueError(f"an input or output is not text: {str(value)[:80]!r}")
    return value


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.isidentifier():
        raise ValueError(f"fn_name is not the name of a function: {value!r}")
    return value


def _call(given: object, expected: object) -> Case:
    if isinstance(given, list):
        return Case(given, expected)
    if not isinstance(given, str):
        raise ValueError(f"arguments are neither a list nor text: {str(given)[:80]!r}")
    try:
        arguments = [json.loads(line) for line in given.splitlines() if line.strip()]
        return Case(arguments, json.loads(expected) if isinstance(expected, str) else expected)
    except ValueError as exc:
        raise ValueError(f"arguments or result are not JSON: {exc}") from exc
