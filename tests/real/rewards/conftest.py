"""A real sandbox for the tests, in each way this machine can make one."""

import os

import pytest

from areal_real.rewards.errors import SandboxFailed, SandboxUnavailable
from areal_real.rewards.sandbox import box

MODES = ("root", "user") if os.geteuid() == 0 else ("user",)


@pytest.fixture(scope="session")
def confined() -> None:
    """Programs can be confined here."""
    missing = box.available()
    if missing is not None:
        give_up(missing)


@pytest.fixture(scope="session", params=MODES)
def sandbox(request: pytest.FixtureRequest, confined: None) -> box.Sandbox:
    """Made by root, who steps down inside, and made in a user namespace."""
    made = box.Sandbox(box.find_bwrap(), box.python_files(), request.param)
    try:
        made.run_program("", b"", box.Limits())
    except (SandboxFailed, SandboxUnavailable) as exc:
        give_up(f"{request.param}: {exc}")
    return made


def give_up(reason: str) -> None:
    """Skip; but fail in CI, whose script installs what is needed."""
    if "CI" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)
