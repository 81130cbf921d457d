"""Reads who imports whom out of the source, without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REAL_ONLY = {"megatron", "sglang", "torch"}
"""Third-party packages that only areal_real imports."""

MAY_IMPORT: dict[str, set[str]] = {
    "areal_sched": set(),
    "traces": {"areal_sched.ids"},
    "analysis": {"areal_sched", "traces"},
    "areal_sim": {"areal_sched", "traces"},
    "areal_real": {"areal_sched", "traces"},
    "paper_figs": {"analysis", "areal_sched", "areal_sim", "traces"},
}
"""The table of the design: which packages of the project a package may import besides itself."""

MAY_ALSO_IMPORT: dict[str, set[str]] = {
    "areal_sim.cli": {"analysis"},
    "areal_sim.commands": {"analysis"},
    "areal_sim.notebook": {"analysis"},
    "areal_sim.rundir": {"analysis"},
    "areal_sim.ui": {"analysis"},
    "areal_real.commands": {"analysis"},
    "areal_real.session": {"analysis"},
}
"""Modules, with all below them, that may import more than the rest of their package."""


class Import(NamedTuple):
    """One import: the module that imports, what it imports, and the line."""

    importer: str
    imported: str
    line: int


def module_name(root: Path, path: Path) -> str:
    """Returns the dotted name of a file below root."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(root: Path, name: str) -> bool:
    """Tells whether a dotted name is a module or a package below root."""
    path = root.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports_of(root: Path, path: Path) -> Iterator[Import]:
    """Yields every import of a file, also those inside functions and under TYPE_CHECKING."""
    importer = module_name(root, path)
    package = importer if path.name == "__init__.py" else importer.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(importer, alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*anchor, *([base] if base else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield Import(importer, inner if is_module(root, inner) else base, node.lineno)


def within(name: str, packages: set[str]) -> bool:
    """Tells whether a dotted name is one of the packages or lies below one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def forbidden(found: Import) -> bool:
    """Tells whether the design's table forbids an import."""
    own = found.importer.partition(".")[0]
    if within(found.imported, REAL_ONLY):
        return own != "areal_real"
    if not within(found.imported, set(MAY_IMPORT)):
        return False
    allowed = {own} | MAY_IMPORT[own]
    for module, more in MAY_ALSO_IMPORT.items():
        if within(found.importer, {module}):
            allowed |= more
    return not within(found.imported, allowed)


def forbidden_imports(root: Path) -> list[str]:
    """Returns the forbidden imports of all packages below root, one line each."""
    return [
        f"{path.relative_to(root)}:{found.line}: {found.importer} imports {found.imported}"
        for package in MAY_IMPORT
        for path in sorted((root / package).rglob("*.py"))
        for found in imports_of(root, path)
        if forbidden(found)
    ]
