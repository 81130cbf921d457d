"""``areal-sim ui``: the planner as a page in the browser."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from areal_sched.errors import ConfigError

PORT = 8501
LONGEST_PORT = 65_535
WAIT_S = 30.0
"""Until the server must have begun to listen; a slow disk needs some seconds."""

VISITOR = "ScriptRunner"
"""The names of Streamlit's threads that work for a visitor begin like this."""

PATIENCE_S = 10.0
"""After Ctrl-C, for what visitors had asked for."""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "ui",
        help="plan in the browser, with sliders for what-ifs",
        description="Serve a page for planning on this machine: a question, its plan, and sliders "
        "that show at once what a change would do. Ctrl-C ends it. Needs the optional package "
        "streamlit: pip install 'areal-lab[ui]'.",
    )
    parser.add_argument("--port", type=int, default=PORT, metavar="N", help=f"default: {PORT}")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDR",
        help="address to listen on; others than this machine's own need a secret in AREAL_UI_TOKEN",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="keep simulations here; default: ~/.cache/areal-lab",
    )
    parser.add_argument("--no-browser", action="store_true", help="open no browser")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry it out."""
    from areal_sim.ui import access

    if find_spec("streamlit") is None:
        raise ConfigError("streamlit is not installed: pip install 'areal-lab[ui]'")
    if not 0 < args.port <= LONGEST_PORT:
        raise ConfigError(f"--port {args.port}: expected a whole number from 1 to {LONGEST_PORT}")
    access.check_host(args.host)
    _check_port(args.host, args.port)
    if args.cache is not None:
        os.environ[access.CACHE_VARIABLE] = str(args.cache.resolve())
    threading.Thread(
        target=_announce, args=(args.host, args.port, not args.no_browser), daemon=True
    ).start()
    _serve(args.host, args.port)
    _end_plans()
    print("areal-sim ui: ended", file=sys.stderr)
    return 0


def _end_plans() -> None:
    """End the plans that were asked for, and do not wait long for them."""
    from multiprocessing import active_children

    for process in active_children():  # a plan without its processes breaks off
        process.terminate()
    end_s = time.monotonic() + PATIENCE_S
    for thread in threading.enumerate():
        if thread.name.startswith(VISITOR):  # Streamlit's other threads end by themselves
            thread.join(max(0.0, end_s - time.monotonic()))
            if thread.is_alive():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(0)


def _check_port(host: str, port: int) -> None:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"--host {host}: {error.strerror}") from None
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the server does: what was served a moment ago does not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise ConfigError(f"--host {host} --port {port}: {error.strerror}") from None


def _announce(host: str, port: int, browse: bool) -> None:
    """Say where the page is as soon as it is there, and open it."""
    # A server on all addresses is reached by any of them.
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    end_s = time.monotonic() + WAIT_S
    while time.monotonic() < end_s:
        try:
            socket.create_connection((reached, port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.1)
    else:
        return
    url = f"http://{f'[{reached}]' if ':' in reached else reached}:{port}"
    print(f"areal-sim ui: {url} (Ctrl-C ends it)", flush=True)
    if browse:
        import webbrowser

        webbrowser.open(url)


def _serve(host: str, port: int) -> None:
    """Serve until Ctrl-C, in this process."""
    from streamlit import net_util
    from streamlit.web import bootstrap

    import areal_sim.ui

    # Where a request comes from elsewhere, Streamlit would ask a server on the internet for this
    # machine's address. Nothing here asks the internet for anything.
    vars(net_util)["get_external_ip"] = lambda: None
    options = {
        "browser_gatherUsageStats": False,
        "client_toolbarMode": "minimal",
        "global_developmentMode": False,
        "logger_hideWelcomeMessage": True,
        "runner_magicEnabled": False,
        "server_address": host,
        "server_fileWatcherType": "none",
        "server_headless": True,
        "server_port": port,
        "server_runOnSave": False,
        "server_showEmailPrompt": False,
        "theme_primaryColor": "#0072b2",
    }
    script = Path(areal_sim.ui.__file__).with_name("script.py")
    bootstrap.load_config_options(options)
    bootstrap.run(str(script), False, [], options)
