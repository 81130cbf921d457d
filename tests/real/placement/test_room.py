"""Room on a Ray cluster that is full: the trainer's comes before that of servers beyond `count`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is not installed: run the tests with `make test`")


@pytest.mark.slow
def test_a_trainer_that_is_lost_finds_its_room_again(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("room.py")), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["at once"]
    assert not found["taken"]
    assert found["trainer waited"] < 15
    assert found["asked"] == 2
