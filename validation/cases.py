"""The cases: what is recorded, and what is predicted."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BASE = HERE / "base.toml"
JOURNALS = HERE / "journals"

FITTED = "fitted"
"""The change of cases that costs are fitted to."""


@dataclass(frozen=True, slots=True)
class Case:
    """One configuration of the real runs.

    Attributes:
        name: of its journals.
        change: what kind of change it is from the base; ``fitted`` for those fitted to.
        settings: the keys that differ.
        repeats: how many runs of it are recorded.
    """

    name: str
    change: str
    settings: Mapping[str, Any]
    repeats: int

    def journal(self, repeat: int) -> Path:
        """Where the journal of a run is kept; repeats count from 1."""
        return JOURNALS / f"{self.name}-{repeat}.jsonl.gz"

    @property
    def journals(self) -> list[Path]:
        """Those that are there."""
        paths = [self.journal(repeat) for repeat in range(1, self.repeats + 1)]
        return [path for path in paths if path.exists()]


def read_cases(path: Path = HERE / "cases.toml") -> list[Case]:
    """The cases of a file, in its order."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    repeats = int(document["repeats"])
    return [
        Case(case["name"], case["change"], case.get("set", {}), repeats)
        for case in document["case"]
    ]
