"""The sender's side of a broadcast, against a receiver that says when it takes what."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_the_next_bucket_is_prepared_while_one_is_broadcast_and_no_more() -> None:
    told = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("overlap.py"))],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )
    assert told.stdout == "all received\n", told.stderr
