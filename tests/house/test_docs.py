"""What the documentation is built of; that it builds without a warning, `make docs` tells CI."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

from tests.house.repo import ROOT, existing_packages

RECORD = re.compile(r"\d{4}-[a-z0-9-]+\.md")


def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_hook", ROOT / "docs" / "hooks" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_package_has_a_reference() -> None:
    site = hook()
    packages = [package for package in site.PACKAGES if (ROOT / package).exists()]
    assert {*existing_packages()} == {*packages}
    for package in packages:
        assert package in site.public_modules(ROOT, package)
    assert not [name for name in site.public_modules(ROOT, "areal_sim") if "._" in name]


def test_what_a_page_loads_from_elsewhere_is_found() -> None:
    here = (
        '<img src="a.png"><link rel="next" href="https://x.test/"><a href="https://x.test/">x</a>'
    )
    there = (
        '<script src="//x.test/a.js"></script><link rel="stylesheet" href="https://x.test/a.css">'
    )
    assert hook().from_elsewhere(here) == []
    assert hook().from_elsewhere(here + there) == ["//x.test/a.js", "https://x.test/a.css"]


def test_the_list_of_decision_records_is_complete() -> None:
    folder = ROOT / "docs" / "adr"
    records = {path.name for path in folder.glob("*.md")} - {"README.md"}
    assert [name for name in sorted(records) if not RECORD.fullmatch(name)] == []
    numbers = [name[:4] for name in records]
    assert len(numbers) == len(set(numbers)), "two records have the same number"
    linked = set(re.findall(r"\((\d{4}-[^)]*\.md)\)", (folder / "README.md").read_text()))
    assert linked == records
