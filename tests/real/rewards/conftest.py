"""A real sandbox for the tests, in each way this machine can make one."""

import os

import pytest

from areal_real.rewards.errors import SandboxFailed, SandboxUnavailable
from areal_real.rewards.sandbox import box

MODES = ("root", "user") if os.geteuid() == 0 else ("user",)


@pytest.fixture(scope="session")
def confined() -> None:
    """Programs can be confined here. In CI they must be: the script installs what is needed."""
    missing = box.available()
    if missing and "CI" in os.environ:
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)


@pytest.fixture(scope="session", params=MODES)
def sandbox(request: pytest.FixtureRequest, confined: None) -> box.Sandbox:
    """Made by root, who steps down inside, and made in a user namespace."""
    bwrap = box.find_bwrap()
    made = box.Sandbox(bwrap, box.python_files(), request.param)
    try:
        made.run_program("", b"", box.Limits())
    except (SandboxFailed, SandboxUnavailable) as exc:
        pytest.skip(f"{request.param}: {exc}")
    return made
