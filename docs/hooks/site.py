"""Build hook of the documentation: the menu and the API reference are made from the tree.

A page in a section's folder joins the menu by being there, in the order of its file name; a
section without pages is not shown. Every public module of every package gets a reference page.
A page that would load something from elsewhere is a warning, which ends `make docs`.
"""

import ast
import logging
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LOG = logging.getLogger("mkdocs.hooks.site")

SECTIONS = {
    "tutorial": "Tutorial",
    "guides": "Guides",
    "reference": "Reference",
    "background": "Background",
    "adr": "Decisions",
}
"""Folder under docs/ and its title in the menu, in the order of the menu."""

PACKAGES = ("areal_sched", "areal_sim", "areal_real", "traces", "analysis", "paper_figs")
"""Packages with a reference, in the order of the menu; one that does not exist is left out."""


def public_modules(root: Path, package: str) -> Iterator[str]:
    """Yields the dotted names of a package and of its modules, without private ones.

    A name with a leading underscore is private, and so is all that lies below it. A module with
    neither a docstring nor code (an empty `__init__.py`) has nothing to show.
    """
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if not any(part.startswith("_") for part in parts) and ast.parse(path.read_text()).body:
            yield ".".join(parts)


def reference_uri(module: str) -> str:
    """Returns the path under docs/ of a module's reference page."""
    return f"reference/{module}.md"


def pages_of(docs: Path, folder: str) -> list[str]:
    """Returns a section's written pages as paths under docs/: its index first, then by name."""
    pages = sorted((docs / folder).glob("*.md"))
    pages.sort(key=lambda page: page.stem not in ("index", "README"))
    return [f"{folder}/{page.name}" for page in pages]


def menu(root: Path, docs: Path) -> list[Any]:
    """Returns the menu in the form of the `nav` key of mkdocs.yml."""
    nav: list[Any] = ["index.md"]
    for folder, title in SECTIONS.items():
        pages: list[Any] = list(pages_of(docs, folder))
        if folder == "reference":
            for package in PACKAGES:
                modules = [
                    {name.removeprefix(f"{package}."): reference_uri(name)}
                    for name in public_modules(root, package)
                ]
                if modules:
                    pages.append({package: modules})
        if pages:
            nav.append({title: pages})
    return nav


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Sets the menu."""
    root = Path(config.config_file_path).parent
    config.nav = menu(root, Path(config.docs_dir))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page for each public module; mkdocstrings fills it in from the docstrings."""
    root = Path(config.config_file_path).parent
    for package in PACKAGES:
        for module in public_modules(root, package):
            content = f"# {module}\n\n::: {module}\n"
            files.append(File.generated(config, reference_uri(module), content=content))
    return files


class Loads(HTMLParser):
    """Collects the addresses a page loads by itself, which leaves out the links it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what this element loads."""
        given = dict(attrs)
        if tag in {"audio", "iframe", "img", "script", "source", "video"}:
            self.addresses.append(given.get("src") or "")
        elif tag == "link" and given.get("rel") not in {"canonical", "next", "prev"}:
            self.addresses.append(given.get("href") or "")


def from_elsewhere(html: str) -> list[str]:
    """Returns the addresses on other hosts that a page loads by itself."""
    loads = Loads()
    loads.feed(html)
    return [address for address in loads.addresses if re.match(r"(https?:)?//", address)]


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Warns of what a page loads from elsewhere."""
    for address in from_elsewhere(output):
        LOG.warning(
            "%s loads %s: the documentation loads nothing from elsewhere", page.url, address
        )
    return output
