"""What is kept of one measured update of all servers, and what follows from it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from areal_sched.errors import ArealError

Interval: TypeAlias = tuple[int, int]
"""From and to, nanoseconds."""

FORMAT = "areal-weight-transfer/1"


class DataError(ArealError, ValueError):
    """A file of measured updates cannot be used."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One version brought to all servers.

    Attributes:
        size_bytes: of the weights.
        servers: that were brought to it.
        method: ``disk`` or ``collective``.
        servers_at_once: that loaded at a time; None: all.
        publish_s: from the end of training until servers could load.
        loads_s: of each server, from its pause to its going on.
        total_s: from the first command to load to the last server that had loaded.
        still_s: in that time, seconds in which a server did not generate, over all servers.
        all_still_s: seconds in which none generated.
    """

    size_bytes: int
    servers: int
    method: str
    servers_at_once: int | None
    publish_s: float
    loads_s: tuple[float, ...]
    total_s: float
    still_s: float
    all_still_s: float

    @property
    def rolling(self) -> bool:
        """Whether servers took turns."""
        return self.servers_at_once is not None

    @property
    def sharing(self) -> int:
        """Servers that loaded at a time."""
        return self.servers if self.servers_at_once is None else self.servers_at_once

    @property
    def key(self) -> tuple[int, int, str, int | None]:
        """Which cell of the table it belongs to."""
        return self.size_bytes, self.servers, self.method, self.servers_at_once


def standstill(
    spans: Sequence[Iterable[tuple[str, int, int]]], start_ns: int, end_ns: int
) -> tuple[int, int]:
    """Nanoseconds without generation in a window.

    Args:
        spans: of each server, (activity, from, to) in order and without a gap. What comes after
            the last one counts as generation.
        start_ns: begin of the window.
        end_ns: end of it.

    Returns:
        Summed over servers, and the time in which no server generated.
    """
    stood = [
        [
            (max(start, start_ns), min(end, end_ns))
            for activity, start, end in server
            if activity != "generate" and max(start, start_ns) < min(end, end_ns)
        ]
        for server in spans
    ]
    common: list[Interval] = [(start_ns, end_ns)]
    for intervals in stood:
        common = [
            (max(a, c), min(b, d)) for a, b in common for c, d in intervals if max(a, c) < min(b, d)
        ]
    return sum(map(_length, stood)), _length(common)


def _length(intervals: Iterable[Interval]) -> int:
    return sum(end - start for start, end in intervals)


def save(path: Path, updates: Sequence[Update], about: dict[str, Any]) -> None:
    """Write updates, and how they were measured."""
    document = {
        "format": FORMAT,
        "about": about,
        "updates": [dataclasses.asdict(update) for update in updates],
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> tuple[list[Update], dict[str, Any]]:
    """Read what `save` wrote.

    Raises:
        DataError: it cannot be read, or is something else.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise ValueError(f"format = {document['format']!r}: expected {FORMAT!r}")
        updates = [
            Update(**{**fields, "loads_s": tuple(fields["loads_s"])})
            for fields in document["updates"]
        ]
        about = dict(document["about"])
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: no measured updates: {error}") from None
    if not updates:
        raise DataError(f"{path}: no measured updates: the list is empty")
    return updates, about
