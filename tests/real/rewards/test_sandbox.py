"""Where programs can be confined, and what is said where they cannot."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from areal_real.rewards.errors import SandboxFailed
from areal_real.rewards.sandbox import box, needs, syscalls

ROOT = Path(__file__).resolve().parents[3]
SYSTEM_PYTHON = "/usr/bin/python3"


def fake_bwrap(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this script the bubblewrap of this machine."""
    bwrap = folder / "bwrap"
    bwrap.write_text(f"#!/bin/sh\n{script}\n")
    bwrap.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_nothing_is_missing_here(confined: None) -> None:
    assert box.available() is None


def test_without_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    assert box.available() == "bubblewrap is not installed (Debian: bubblewrap)"


def test_without_pyseccomp(monkeypatch: pytest.MonkeyPatch, confined: None) -> None:
    monkeypatch.setitem(sys.modules, "pyseccomp", None)

    assert box.available() == "the Python package pyseccomp is not installed"


def test_on_another_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")

    assert box.available() == "programs can only be confined on Linux"


def test_without_namespaces(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, confined: None
) -> None:
    words = "bwrap: No permissions to create new namespace"
    fake_bwrap(tmp_path, f"echo '{words}' >&2; exit 1", monkeypatch)

    message = box.available()

    assert message is not None
    assert message.startswith("bubblewrap cannot confine a program here: as ")
    assert words in message


def test_a_sandbox_that_confines_nothing_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, confined: None
) -> None:
    """One that only runs the program, with all it may do outside."""
    script = tmp_path / "fake.py"
    script.write_text("""
import os, sys
words = sys.argv
files = {words[i + 2]: int(words[i + 1]) for i, w in enumerate(words) if w == "--ro-bind-data"}
os.write(int(words[words.index("program") + 1]), b"1")
exec(os.read(files["/answer.py"], 1 << 20))
""")
    fake_bwrap(tmp_path, f'exec {sys.executable} {script} "$@"', monkeypatch)

    message = box.available()

    assert message is not None
    assert "not confined: fork was allowed" in message


def test_a_sandbox_that_does_not_start_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, confined: None
) -> None:
    """Also when it says nothing, or does not end."""
    for script, limits in (("exit 0", box.Limits()), ("sleep 60", box.Limits(wall_s=0.5))):
        fake_bwrap(tmp_path, f"exec {script}" if script[0] == "s" else script, monkeypatch)
        sandbox = box.Sandbox(box.find_bwrap(), needs.python_files(), "user")

        with pytest.raises(SandboxFailed, match="did not start"):
            sandbox.run_program("print(1)", b"", limits)


def test_what_is_shown_is_python_alone(confined: None) -> None:
    files = needs.python_files()
    inside = [path for _, path in files.shown]

    assert all(path.startswith((needs.PREFIX, "/lib")) for path in inside)
    assert all(os.path.exists(path) for path, _ in files.shown)
    assert str(Path.home()) not in str(inside)


def test_the_filter_is_a_program_of_whole_instructions(confined: None) -> None:
    program = syscalls.seccomp_program()

    assert program
    assert len(program) % 8 == 0  # struct sock_filter


ORDINARY = """
from areal_real.rewards.sandbox import box
missing = box.available()
print(missing)
if missing is None:
    sandbox = box.prepare()
    print(sandbox.mode)
    bomb = '''
import threading, time
threading.stack_size(32768)
try:
    for n in range(1000): threading.Thread(target=time.sleep, args=(99,), daemon=True).start()
finally: print(n, flush=True)
'''
    print(sandbox.run_program(bomb, b"", box.Limits()).stdout.decode(), end="")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
def test_an_ordinary_user_confines_too(confined: None) -> None:
    probe = "import sys; raise SystemExit(sys.version_info < (3, 11))"
    if not os.path.exists(SYSTEM_PYTHON) or subprocess.run([SYSTEM_PYTHON, "-c", probe]).returncode:
        pytest.skip("no Python 3.11 that every user can run")
    import pyseccomp

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(ROOT / "areal_sched", folder / "areal_sched")
        shutil.copytree(ROOT / "areal_real/rewards", folder / "areal_real/rewards")
        for path in ("areal_real/__init__.py", "areal_real/errors.py"):
            shutil.copy(ROOT / path, folder / path)
        shutil.copy(pyseccomp.__file__, folder)
        done = subprocess.run(
            [SYSTEM_PYTHON, "-B", "-c", ORDINARY],
            user=65534,
            group=65534,
            extra_groups=[],
            cwd="/",
            env={"PATH": os.environ["PATH"], "PYTHONPATH": name},
            capture_output=True,
            text=True,
        )

    assert done.stderr == ""
    missing, *rest = done.stdout.split("\n")
    if missing != "None":
        pytest.skip(f"this machine lets only root confine programs: {missing}")
    mode, threads, _ = rest
    assert mode == "user"
    assert 0 < int(threads) < box.Limits().threads
