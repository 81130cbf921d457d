"""Checksums of a folder: whether its files are, byte for byte, what was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SELF = "sha256"
"""Key under which a set of facts has the checksum of all its other keys."""


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path from there.

    A processor with SHA instructions reads a gigabyte in a second; files are read side by side.

    Raises:
        OSError: a file cannot be read.
    """
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(_sha256, paths))
    names = [path.relative_to(folder).as_posix() for path in paths]
    return dict(zip(names, found, strict=True))


def difference(folder: Path, expected: Mapping[str, str]) -> str | None:
    """What is wrong with a folder whose checksums are known; None if nothing is.

    Files that came in addition do no harm.
    """

    def wrong(name: str) -> str | None:
        path = folder / name
        try:
            if _sha256(path) == expected[name]:
                return None
            return f"{name}: its {path.stat().st_size} bytes are not those that were written"
        except OSError as exc:
            return f"{name}: {exc.strerror or exc}"

    with ThreadPoolExecutor() as pool:
        return next(filter(None, pool.map(wrong, expected)), None)


def sealed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts together with their own checksum."""
    return {**facts, SELF: _of_facts(facts)}


def seal_broken(facts: Mapping[str, Any]) -> bool:
    """Whether facts that have a checksum of their own are not those it was made of."""
    return SELF in facts and facts[SELF] != _of_facts(facts)


def _of_facts(facts: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in facts.items() if key != SELF}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
