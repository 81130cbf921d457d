"""``areal-real`` whose requests to its servers go through a proxy; the rest is as it is.

The proxy's address is in the environment. The product knows nothing of it: the HTTP library's
session has a proxy as one of its arguments, and gets it here.
"""

from __future__ import annotations

import functools
import os
import sys
from types import SimpleNamespace

import aiohttp

from areal_real import cli
from areal_real.serving import client

VARIABLE = "AREAL_FAULTS_PROXY"


def main() -> int:
    """Carry out a command line of ``areal-real``."""
    session = functools.partial(aiohttp.ClientSession, proxy=os.environ[VARIABLE])
    through = SimpleNamespace(**{**vars(aiohttp), "ClientSession": session})
    setattr(client, "aiohttp", through)  # noqa: B010 - it is no name that the module exports
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
