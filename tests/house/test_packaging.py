"""What an installed areal-lab consists of and what it needs."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from functools import cache
from typing import Any

from packaging.requirements import Requirement

from tests.house.repo import PACKAGES, ROOT, existing_packages, source_files

NAME_AND_VERSION = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)")


@cache
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [NAME_AND_VERSION.fullmatch(line) for line in lines if not line.startswith("#")]
    assert all(found), "every line of constraints.txt is a comment or NAME==VERSION"
    return {normal(match["name"]): match["version"] for match in found if match}


def test_what_is_installed_by_make_is_pinned_within_its_range() -> None:
    extras = pyproject()["project"]["optional-dependencies"]
    wanted = [*pyproject()["project"]["dependencies"], *extras["dev"], *extras["docs"]]
    pinned = pins()
    for text in wanted:
        requirement = Requirement(text)
        if requirement.name != "areal-lab":
            assert requirement.specifier.contains(pinned[normal(requirement.name)]), text


def test_every_package_of_the_design_is_packed() -> None:
    include = pyproject()["tool"]["setuptools"]["packages"]["find"]["include"]
    assert sorted(include) == sorted([*PACKAGES, *(f"{name}.*" for name in PACKAGES)])


def test_every_folder_with_code_is_a_package() -> None:
    """A folder without `__init__.py` would be left out of the wheel without a word."""
    folders = {
        path.parent
        for path in source_files()
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in PACKAGES
    }
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_every_data_file_of_a_package_is_packed() -> None:
    tables = pyproject()["tool"]["setuptools"]
    patterns = [pattern.rpartition("/")[2] for pattern in tables["package-data"]["*"]]
    left_out = tables["exclude-package-data"]["*"]
    forgotten = [
        str(path.relative_to(ROOT))
        for path in source_files()
        if path.relative_to(ROOT).parts[0] in existing_packages()
        and path.suffix != ".py"
        and not any(fnmatch(path.name, pattern) for pattern in [*patterns, *left_out])
    ]
    assert forgotten == []


def test_every_package_says_that_it_is_typed() -> None:
    missing = [name for name in existing_packages() if not (ROOT / name / "py.typed").is_file()]
    assert missing == []
