"""One small synthetic sample per trace format; see the README beside them."""

from __future__ import annotations

from pathlib import Path


def sample_path(name: str) -> Path:
    """Return the path of a sample file, such as ``azure.csv``.

    Raises:
        ValueError: there is no such sample; lists those there are.
    """
    folder = Path(__file__).parent
    samples = sorted(path.name for path in folder.iterdir() if path.suffix in (".csv", ".jsonl"))
    if name not in samples:
        raise ValueError(f"there is no sample {name!r}; there are: {', '.join(samples)}")
    return folder / name
