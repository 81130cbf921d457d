"""Who may use the page, and where it keeps what it simulated."""

from __future__ import annotations

import hmac
import ipaddress
import os
from pathlib import Path

from areal_sched.errors import ConfigError

TOKEN_VARIABLE = "AREAL_UI_TOKEN"
CACHE_VARIABLE = "AREAL_UI_CACHE"
"""Folder of kept simulations, from the command to the page."""

LEAST_TOKEN = 16
"""Characters of a token that nobody guesses."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_host(host: str) -> None:
    """Refuse to serve others without a token.

    Raises:
        ConfigError: the host can be reached from elsewhere, and there is no token or a short one.
    """
    token = wanted_token()
    if token is not None and len(token) < LEAST_TOKEN:
        raise ConfigError(
            f"{TOKEN_VARIABLE}: has {len(token)} characters, needs at least {LEAST_TOKEN}"
        )
    if token is None and not is_loopback(host):
        raise ConfigError(
            f"--host {host}: others could use the page; set {TOKEN_VARIABLE} to a secret of at"
            f" least {LEAST_TOKEN} characters, or stay on 127.0.0.1 and use an SSH tunnel"
        )


def wanted_token() -> str | None:
    """The token visitors need; None: everybody may."""
    return os.environ.get(TOKEN_VARIABLE) or None


def admits(given: str | None) -> bool:
    """Whether a visitor with this token may use the page."""
    wanted = wanted_token()
    if wanted is None:
        return True
    # In constant time: how long it takes says nothing of how much of a guess was right.
    return hmac.compare_digest((given or "").encode(), wanted.encode())


def cache_folder() -> Path:
    """Where simulations are kept: as told, else in the user's cache folder."""
    if told := os.environ.get(CACHE_VARIABLE):
        return Path(told)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "areal-lab" / "plans"
