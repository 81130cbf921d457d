"""What holds for every file of the repository."""

from __future__ import annotations

import re

import pytest

from tests.house.repo import ROOT, python_files, source_files

LONGEST = 399
"""Lines a Python file may have: it is read in one sitting."""

LONGER_FILES: dict[str, str] = {}
"""Python files that may be longer, each with the reason."""

OF_ONE_MACHINE = re.compile(r"(?<![\w.)}/-])/(?:work|root|tmp)(?![\w-])")
"""Absolute paths that exist on one machine only. A relative or longer path is none."""


@pytest.mark.parametrize("path", ["a/tmp/b", "runs/tmp", "$(X)/tmp", "{x}/tmp", "/tmpfs", "./root"])
def test_what_is_no_absolute_path(path: str) -> None:
    assert not OF_ONE_MACHINE.search(path)


@pytest.mark.parametrize("folder", ["work", "root", "tmp"])
@pytest.mark.parametrize("around", ["{}", "see {}.", "'{}/x'", "--out={}/run", "({})", "PATH:{}/b"])
def test_what_is_an_absolute_path(folder: str, around: str) -> None:
    assert OF_ONE_MACHINE.search(around.format(f"/{folder}"))


def test_no_file_names_a_folder_of_one_machine() -> None:
    found = []
    for path in source_files():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        name = path.relative_to(ROOT)
        if name.parts[:2] != ("tests", "house") or name.name != "test_files.py":
            found += [
                f"{name}:{number}"
                for number, line in enumerate(lines, 1)
                if OF_ONE_MACHINE.search(line)
            ]
    assert found == []


def test_every_python_file_can_be_read_in_one_sitting() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in python_files()
    }
    assert lengths, "no Python file was found: the listing of source files is broken"
    too_long = {name: lines for name, lines in lengths.items() if lines > LONGEST}
    assert {name for name in too_long if name not in LONGER_FILES} == set(), too_long
    assert {name for name in LONGER_FILES if name not in too_long} == set(), "no longer needed"


def test_every_text_file_ends_its_last_line_and_has_unix_line_ends() -> None:
    ours = {".py", ".md", ".toml", ".yml", ".yaml", ""}
    wrong = [
        str(path.relative_to(ROOT))
        for path in source_files()
        if path.suffix in ours
        and (content := path.read_bytes())
        and (b"\r\n" in content or not content.endswith(b"\n"))
    ]
    assert wrong == []
