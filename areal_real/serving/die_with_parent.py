"""Replace this process by a command that the kernel kills when our parent dies (Linux).

Run as ``python -I die_with_parent.py PARENT_PID COMMAND...``. The request survives `exec`, so
nothing is left running when the parent is killed without a chance to clean up.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""``linux/prctl.h``."""


def main() -> None:
    """Ask for the signal, check that the parent still lives, become the command."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent died before its server started")
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
