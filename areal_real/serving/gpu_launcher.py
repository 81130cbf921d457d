"""SGLang's HTTP server on a machine with GPUs: run this file as a script, with SGLang's flags.

As ``python -m sglang.launch_server``, behind `areal_real.serving.guard`.
"""

from __future__ import annotations

import runpy
from pathlib import Path


def main() -> None:
    """Serve until killed."""
    # By its path: the interpreter that has SGLang need not have us.
    runpy.run_path(str(Path(__file__).with_name("guard.py")))["install"]()
    runpy.run_module("sglang.launch_server", run_name="__main__")


if __name__ == "__main__":  # SGLang's processes, which are spawned, import this file too
    main()
