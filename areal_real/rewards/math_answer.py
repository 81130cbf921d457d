r"""Mathematical answers, compared by math-verify: 1/2, 0.5 and \frac{1}{2} are the same.

What is compared is the last ``\boxed{}`` that is closed; in an answer without one, what math-verify
extracts: "the final answer is", else the last formula or number. (Given several boxes, math-verify
would compare the set of them all.)

There is no time-out here: math-verify's own are alarm signals, which a loop inside big-number
arithmetic does not feel. The reward pool kills the worker instead, and the worker's address space
is limited (math-verify takes a MemoryError as "not equal").
"""

from __future__ import annotations

import logging
import re

from math_verify import parse, verify
from math_verify.parser import ExprExtractionConfig, LatexExtractionConfig

# math-verify warns on every call without a time-out of its own that somebody else must have one.
logging.getLogger("math_verify").setLevel(logging.ERROR)

_KINDS = (LatexExtractionConfig(), ExprExtractionConfig())
# A box's start, an escaped character (as the braces of a set), a brace.
_BRACES = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)


def score(reference: str, answer: str) -> float:
    r"""1.0 if the answer's last expression equals the reference, else 0.0.

    Args:
        reference: LaTeX or plain text, with or without ``\boxed{}`` or dollars around it.
        answer: the whole text of the model.

    Raises:
        ValueError: no expression can be read from the reference.
    """
    bare = "\\boxed" not in reference and "$" not in reference
    boxed = f"\\boxed{{{reference}}}" if bare else reference
    gold = parse(boxed, _KINDS, parsing_timeout=None)
    if not gold:
        raise ValueError(f"no mathematical answer in the reference {reference[:80]!r}")
    found = parse(last_box(answer) or answer, _KINDS, parsing_timeout=None)
    return float(verify(gold, found, timeout_seconds=None))


def last_box(text: str) -> str:
    r"""The last closed ``\boxed{...}`` of a text, with its braces; empty if there is none."""
    box = ""
    opened: list[int] = []  # where each open brace's box starts, -1 for other braces
    for token in _BRACES.finditer(text):
        if token[0].startswith("\\boxed"):
            opened.append(token.start())
        elif token[0] == "{":
            opened.append(-1)
        elif token[0] == "}" and opened:
            start = opened.pop()
            if start >= 0:
                box = text[start : token.end()]
    return box
