"""The documentation: it builds without a warning, loads nothing from elsewhere and is complete."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.house.repo import ROOT, clean_environment, existing_packages

RECORD = re.compile(r"\d{4}-[a-z0-9-]+\.md")


class Loads(HTMLParser):
    """Collects the addresses a page loads by itself, which leaves out the links it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in {"audio", "iframe", "img", "script", "source", "video"}:
            self.addresses.append(given.get("src") or "")
        elif tag == "link" and given.get("rel") not in {"canonical", "next", "prev"}:
            self.addresses.append(given.get("href") or "")


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    site = tmp_path / "site"
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(site)],
        cwd=ROOT,
        env=clean_environment(NO_MKDOCS_2_WARNING="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    pages = {str(page.relative_to(site)): page for page in site.rglob("*.html")}
    assert {f"reference{os.sep}{name}.html" for name in existing_packages()} <= pages.keys()
    for name, page in pages.items():
        loads = Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        assert [url for url in loads.addresses if re.match(r"(https?:)?//", url)] == [], name


def test_the_list_of_decision_records_is_complete() -> None:
    folder = ROOT / "docs" / "adr"
    records = {path.name for path in folder.glob("*.md")} - {"README.md"}
    assert [name for name in sorted(records) if not RECORD.fullmatch(name)] == []
    numbers = [name[:4] for name in records]
    assert len(numbers) == len(set(numbers)), "two records have the same number"
    linked = set(re.findall(r"\((\d{4}-[^)]*\.md)\)", (folder / "README.md").read_text()))
    assert linked == records
