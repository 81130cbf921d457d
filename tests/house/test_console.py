"""The mechanism that executes a page's commands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.house.console import PageError, Step, matches, run, steps

PAGE = """\
# Title

```console
$ not marked, so not run
```

<!-- executed -->
```console
$ echo one; echo two
one
two
$ echo long \\
  > out.txt
$ cat out.txt
lo...
```

<!-- executed exit=2 -->

```console
$ echo bad >&2; exit 2
bad
```
"""


def execute(page: str, folder: Path) -> None:
    for step in steps(page):
        run(step, folder=folder, environment=dict(os.environ))


def test_the_marked_commands_are_found_in_order() -> None:
    assert steps(PAGE) == [
        Step(line=9, command="echo one; echo two", output="one\ntwo", exit_status=0),
        Step(line=12, command="echo long \\\n  > out.txt", output="", exit_status=0),
        Step(line=14, command="cat out.txt", output="lo...", exit_status=0),
        Step(line=21, command="echo bad >&2; exit 2", output="bad", exit_status=2),
    ]


def test_a_true_page_passes(tmp_path: Path) -> None:
    execute(PAGE, tmp_path)
    assert (tmp_path / "out.txt").read_text() == "long\n"


@pytest.mark.parametrize(
    ("true", "false"),
    [
        ("one\ntwo\n$", "one\nthree\n$"),
        ("one\ntwo\n$", "one\n$"),
        ("one\ntwo\n$", "one\ntwo\nthree\n$"),
        ("lo...", "so..."),
        ("exit=2", "exit=3"),
        ("executed exit=2", "executed"),
    ],
)
def test_a_false_page_fails(tmp_path: Path, true: str, false: str) -> None:
    page = PAGE.replace(true, false, 1)
    assert page != PAGE
    with pytest.raises(PageError, match=r"line \d+: \$ .*\n"):
        execute(page, tmp_path)


def test_a_command_that_fails_fails_the_page(tmp_path: Path) -> None:
    with pytest.raises(PageError, match="exit status 7, not 0"):
        execute("<!-- executed -->\n```console\n$ exit 7\n```\n", tmp_path)


@pytest.mark.parametrize(
    "page",
    [
        "<!-- executed -->\n\ntext\n",
        "<!-- executed -->\n```bash\n$ ls\n```\n",
        "<!-- executed: exit=2 -->\n```console\n$ ls\n```\n",
        "<!-- executed -->\n```console\nls\n```\n",
    ],
)
def test_a_mark_that_would_run_nothing_is_an_error(page: str) -> None:
    with pytest.raises(PageError, match=r"line [13]: "):
        steps(page)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("a\nb", "a  \nb\n"),
        ("a ... c", "a b c"),
        ("a\n...\nd", "a\nb\nc\nd\n"),
        ("speed: ... (x.y)", "speed: 12 (x.y)"),
        ("...", ""),
    ],
)
def test_output_matches(shown: str, printed: str) -> None:
    assert matches(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [("a", "a\nb"), ("a ... c", "a b"), ("x.y", "xzy"), ("a\nb", "a b"), ("a", "")],
)
def test_output_differs(shown: str, printed: str) -> None:
    assert not matches(shown, printed)
