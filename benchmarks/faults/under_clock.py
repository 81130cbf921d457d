"""``areal-real`` under libfaketime: the program alone, not the processes that it starts.

libfaketime (0.9.10) breaks sleeping in torchrun. The program shows its wall clock in a file, so
that whoever made it jump can see that it did.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from areal_real import cli

SHOWN = "AREAL_FAULTS_SHOWN_CLOCK"
EVERY_S = 0.2


def _show(path: Path) -> None:
    part = path.with_name(path.name + ".part")
    pause = threading.Event()
    while not pause.wait(EVERY_S):
        part.write_text(repr(time.time()))
        part.replace(path)


def main() -> int:
    """Carry out a command line of ``areal-real``."""
    os.environ.pop("LD_PRELOAD")  # of the processes it starts
    threading.Thread(target=_show, args=(Path(os.environ[SHOWN]),), daemon=True).start()
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
