"""What is made once for all tests of the trainer: a reference, and trainers of several layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.real.training import small

HERE = Path(__file__).parent

ONE = [
    {"name": "one", "layout": {}, "models": ["plain", "tied"], "actions": ["one_step", "long"]},
    {"name": "more", "layout": {}, "models": ["plain"], "actions": ["options", "new", "few"]},
    {"name": "disk", "layout": {}, "models": ["plain"], "actions": ["full_disk"]},
    {
        "name": "bf16",
        "layout": {"dtype": "bfloat16"},
        "models": ["plain"],
        "actions": ["long", "served"],
    },
]

EQUAL = ["one_step", "long", "weights"]
TWO = [
    {
        "name": "tp2",
        "layout": {"tensor_parallel": 2},
        "models": ["plain", "tied"],
        "actions": [*EQUAL, "options", "new"],
    },
    {
        "name": "pp2",
        "layout": {"pipeline_parallel": 2},
        "models": ["plain", "tied"],
        "actions": [*EQUAL, "new"],
    },
    {
        "name": "dp2",
        "layout": {"data_parallel": 2},
        "models": ["plain", "tied"],
        "actions": [*EQUAL, "few"],
    },
    {
        "name": "dp2-distributed",
        "layout": {"data_parallel": 2, "distributed_optimizer": True},
        "models": ["plain", "tied"],
        "actions": [*EQUAL, "few"],
    },
    {
        "name": "disk",
        "layout": {"pipeline_parallel": 2},
        "models": ["plain"],
        "actions": ["full_disk"],
    },
    {
        "name": "bf16",
        "layout": {"data_parallel": 2, "distributed_optimizer": True, "dtype": "bfloat16"},
        "models": ["plain"],
        "actions": ["long", "served"],
    },
    {
        "name": "bf16-tp2",
        "layout": {"tensor_parallel": 2, "dtype": "bfloat16"},
        "models": ["plain"],
        "actions": ["long"],
    },
    {
        "name": "bf16-pp2",
        "layout": {"pipeline_parallel": 2, "dtype": "bfloat16"},
        "models": ["plain"],
        "actions": ["long"],
    },
]

FOUR = [
    {
        "name": "tp2-pp2",
        "layout": {"tensor_parallel": 2, "pipeline_parallel": 2},
        "models": ["plain", "tied"],
        "actions": EQUAL,
    },
    {
        "name": "tp2-dp2-distributed",
        "layout": {"tensor_parallel": 2, "data_parallel": 2, "distributed_optimizer": True},
        "models": ["plain"],
        "actions": EQUAL,
    },
    {
        "name": "pp2-dp2",
        "layout": {"pipeline_parallel": 2, "data_parallel": 2},
        "models": ["plain"],
        "actions": [*EQUAL, "few"],
    },
]


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, and what plain torch makes of them."""
    out = tmp_path_factory.mktemp("reference")
    small.run_script(HERE / "reference.py", str(out))
    return out


@pytest.fixture(scope="session")
def two(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the layouts of two processes."""
    return run_plan(reference, tmp_path_factory.mktemp("two"), TWO, 2)


@pytest.fixture(scope="session")
def one(reference: Path, two: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of one process; it also goes on from the checkpoints of two."""
    adopted = [
        {
            "name": f"after-{item['name']}",
            "layout": {},
            "models": [model],
            "actions": ["adopted"],
            "folder": str(two / f"{item['name']}-{model}" / "halfway"),
        }
        for item in TWO[:4]
        for model in ("plain", "tied")
    ]
    return run_plan(reference, tmp_path_factory.mktemp("one"), ONE + adopted, 1)


@pytest.fixture(scope="session")
def four(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the layouts of four processes."""
    return run_plan(reference, tmp_path_factory.mktemp("four"), FOUR, 4)


def run_plan(reference: Path, out: Path, plan: list[dict[str, Any]], processes: int) -> Path:
    """Run layouts one after the other in one start of processes; returns the folder of results."""
    file = out / "plan.json"
    file.write_text(json.dumps(plan))
    small.run_script(HERE / "layouts.py", str(reference), str(out), str(file), str(processes))
    return out
