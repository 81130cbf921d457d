from __future__ import annotations

from pathlib import Path

import pytest

from traces.data import sample_path
from traces.data.make_samples import write

FOLDER = sample_path("azure.csv").parent


def test_the_samples_are_what_the_script_writes(tmp_path: Path) -> None:
    write(tmp_path)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    kept = {
        path.name: path.read_bytes()
        for path in FOLDER.iterdir()
        if path.suffix not in (".py", ".md") and path.is_file()
    }
    assert made == kept


def test_the_readme_names_every_sample_its_origin_and_licence() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in FOLDER.iterdir():
        if path.suffix in (".csv", ".jsonl"):
            assert f"`{path.name}`" in readme
    assert "Origin: this project. Licence: Apache-2.0" in readme


def test_an_unknown_sample_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no sample 'nil.csv'; there are: areal.jsonl, azure.csv"):
        sample_path("nil.csv")
