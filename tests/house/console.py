"""Runs the commands that a Markdown page shows and compares their output with the page.

Only a fenced `console` block right below the comment `<!-- executed -->` counts:

    <!-- executed -->
    ```console
    $ areal-sim --version
    areal-sim ...
    ```

A line that starts with "$ " is a command, and a line that ends in a backslash goes on in the next.
The lines up to the next command are its whole output, standard error included. "..." stands for
any text, also over several lines, and spaces at line ends do not count. A command without output
lines may print anything. The exit status must be 0, or N below `<!-- executed exit=N -->`.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(
    r"^<!-- executed(?: exit=(?P<exit>\d+))? -->[ ]*\n"
    r"(?P<blank>(?:[ ]*\n)*)"
    r"```console[ ]*\n"
    r"(?P<body>.*?)"
    r"^```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
MARK = re.compile(r"^<!--\s*executed", re.MULTILINE)
LIMIT_S = 300.0
"""How long one command may take before it counts as hanging."""


class PageError(ValueError):
    """The page does not say what to run, or the output differs from what the page shows."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command of a page: its line number, what it prints and how it ends."""

    line: int
    command: str
    output: str
    exit_status: int


def steps(text: str) -> list[Step]:
    """Returns the commands of a page in order.

    Raises:
        PageError: a marked block is not a console block, or does not start with a command.
    """
    blocks = list(BLOCK.finditer(text))
    for mark in MARK.finditer(text):
        if mark.start() not in {block.start() for block in blocks}:
            line = text.count("\n", 0, mark.start()) + 1
            raise PageError(f"line {line}: no ```console block follows this `executed` comment")
    return [step for block in blocks for step in _steps_of(text, block)]


def _steps_of(text: str, block: re.Match[str]) -> list[Step]:
    exit_status = int(block["exit"] or 0)
    first = text.count("\n", 0, block.start("body")) + 1
    found: list[tuple[int, list[str], list[str]]] = []
    continues = False
    for number, line in enumerate(block["body"].splitlines(), first):
        if continues:
            found[-1][1].append(line)
        elif line.startswith("$ "):
            found.append((number, [line[2:]], []))
        elif found:
            found[-1][2].append(line)
        else:
            raise PageError(f'line {number}: the block starts with output, not with "$ "')
        continues = not found[-1][2] and found[-1][1][-1].endswith("\\")
    return [
        Step(
            line=number,
            command="\n".join(command),
            output="\n".join(output),
            exit_status=exit_status,
        )
        for number, command, output in found
    ]


def matches(shown: str, printed: str) -> bool:
    """Tells whether printed text is what a page shows, where "..." stands for any text."""
    shown, printed = (
        "\n".join(line.rstrip() for line in text.strip("\n").splitlines())
        for text in (shown, printed)
    )
    pattern = ".*".join(re.escape(part) for part in shown.split("..."))
    return re.fullmatch(pattern, printed, re.DOTALL) is not None


def run(step: Step, *, folder: Path, environment: dict[str, str]) -> None:
    """Runs one command in a folder.

    Raises:
        PageError: it ends or prints otherwise than the page shows.
    """
    result = subprocess.run(
        ["bash", "-c", step.command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    said = f"line {step.line}: $ {step.command}\n"
    if result.returncode != step.exit_status:
        wanted = f"exit status {result.returncode}, not {step.exit_status}"
        raise PageError(f"{said}{wanted}. It printed:\n{result.stdout}")
    if step.output and not matches(step.output, result.stdout):
        raise PageError(f"{said}The page shows:\n{step.output}\nIt printed:\n{result.stdout}")
