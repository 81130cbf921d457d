"""Writing several files so that none of them is ever half there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path


def replace_together(writers: Mapping[Path, Callable[[Path], object]]) -> None:
    """Write all of some files beside where they belong, then put them there.

    Args:
        writers: for each file, what writes it to the path it is given.

    Raises:
        OSError: a file cannot be written; what was there before is untouched.
    """
    parts = {path: path.with_name(f"part-of-{path.name}") for path in writers}
    try:
        for path, write in writers.items():
            write(parts[path])
        for path, part in parts.items():
            part.replace(path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def text_writer(text: str) -> Callable[[Path], object]:
    """What writes a text."""
    return lambda path: path.write_text(text, encoding="utf-8")
