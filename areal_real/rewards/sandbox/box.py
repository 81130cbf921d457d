"""One program, one sandbox: start it, wait, end it, and tell how it ended."""

from __future__ import annotations

import fcntl
import json
import math
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from areal_real.rewards.errors import SandboxFailed, SandboxUnavailable
from areal_real.rewards.sandbox import harness
from areal_real.rewards.sandbox.needs import LIBRARIES, PythonFiles, python_files
from areal_real.rewards.sandbox.syscalls import seccomp_program

Mode = Literal["root", "user"]
Ending = Literal["done", "error", "cpu", "wall", "output", "killed"]

FOLDER = "/box"
"""The temporary folder, as the program sees it; it starts there."""

_ERROR_TAIL_BYTES = 4096
_END_S = 10.0  # for a killed sandbox to be gone; it takes milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a program may use.

    Attributes:
        cpu_s: processor seconds, of each case. APPS allows 4 s, LiveCodeBench 6 s.
        wall_s: seconds on the wall for the whole run, for programs that sleep.
        memory_bytes: address space.
        file_bytes: its output, and any file it writes.
        folder_bytes: its temporary folder.
        threads: tasks at a time.
    """

    cpu_s: float = 4.0
    wall_s: float = 20.0
    memory_bytes: int = 1 << 30
    file_bytes: int = 16 << 20
    folder_bytes: int = 32 << 20
    threads: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a program ended.

    Attributes:
        ending: ``done`` (exit status 0), ``error`` (another one), ``cpu`` (out of processor time),
            ``wall`` (out of wall time), ``output`` (printed too much), ``killed`` (by another
            signal).
        stdout: what it printed; of the form ``calls``, one line of JSON per finished call.
        error: the last line it printed to standard error.
        wall_s: how long it took.
    """

    ending: Ending
    stdout: bytes
    error: str
    wall_s: float


class Sandbox:
    """Runs programs, one at a time, each in a sandbox of its own.

    Args:
        bwrap: path of bubblewrap.
        python: what is shown of the file system.
        mode: ``root``: bubblewrap runs as root and the harness becomes an unused user id.
            ``user``: in a user namespace, as an ordinary user may.
    """

    def __init__(self, bwrap: str, python: PythonFiles, mode: Mode) -> None:
        self.mode: Mode = mode
        self._filter = seccomp_program()
        self._harness = Path(harness.__file__).read_bytes()
        # Limits on tasks count per user id: one that nobody else has, also not another worker.
        self._uid = 20_000 + os.getpid() % 40_000 if mode == "root" else 0
        self._head = [bwrap, *_view(python, mode)]
        self._python = [python.executable, "-I", "-S", "-B", "-X", "utf8", "/harness.py"]

    def run_program(self, source: str, stdin: bytes, limits: Limits) -> Outcome:
        """Run a main program on this input.

        Raises:
            SandboxFailed: the sandbox itself did not start.
        """
        return self._run("program", source, stdin, limits, math.ceil(limits.cpu_s), ())

    def run_calls(
        self, source: str, fn_name: str, cases: Sequence[Sequence[object]], limits: Limits
    ) -> Outcome:
        """Call a function (or a method of the class ``Solution``) once per list of arguments.

        Raises:
            SandboxFailed: the sandbox itself did not start.
        """
        stdin = json.dumps(cases).encode()
        cpu_s = math.ceil(min(limits.cpu_s * (len(cases) + 1), limits.wall_s))
        return self._run("calls", source, stdin, limits, cpu_s, (fn_name, str(limits.cpu_s)))

    def _run(
        self,
        form: str,
        source: str,
        stdin: bytes,
        limits: Limits,
        cpu_s: int,
        rest: tuple[str, ...],
    ) -> Outcome:
        with ExitStack() as files:
            # Files in memory, not pipes: the program can neither block us nor fill us up.
            given = files.enter_context(_memory_file(stdin))
            printed = files.enter_context(_memory_file(None))
            errors = files.enter_context(_memory_file(None))
            started = files.enter_context(_memory_file(None))
            info = files.enter_context(_memory_file(None))
            loaded = [
                files.enter_context(_memory_file(data))
                for data in (self._filter, self._harness, source.encode("utf-8", "replace"))
            ]
            filter_fd, harness_fd, source_fd = (file.fileno() for file in loaded)
            command = [*self._head, "--size", str(limits.folder_bytes)]
            command += ["--perms", "1777", "--tmpfs", FOLDER, "--chdir", FOLDER]
            command += ["--perms", "0444", "--ro-bind-data", str(harness_fd), "/harness.py"]
            command += ["--perms", "0444", "--ro-bind-data", str(source_fd), "/answer.py"]
            command += ["--remount-ro", "/", "--seccomp", str(filter_fd)]
            command += ["--info-fd", str(info.fileno()), "--", *self._python, form]
            numbers = (started.fileno(), self._uid, limits.threads, cpu_s)
            command += map(str, (*numbers, limits.memory_bytes, limits.file_bytes))
            command += rest
            began = time.monotonic()
            process = subprocess.Popen(
                command,
                stdin=given,
                stdout=printed,
                stderr=errors,
                env={},
                pass_fds=[file.fileno() for file in (started, info, *loaded)],
            )
            in_time = _wait(process, info, limits.wall_s)
            wall_s = time.monotonic() - began
            error = _tail(errors)
            if os.fstat(started.fileno()).st_size == 0:
                raise SandboxFailed(f"the sandbox did not start: {error or process.returncode}")
            printed.seek(0)
            stdout = printed.read(limits.file_bytes)
        ending = _ending(process.returncode, in_time, len(stdout) >= limits.file_bytes)
        return Outcome(ending=ending, stdout=stdout, error=error, wall_s=wall_s)


def prepare() -> Sandbox:
    """The sandbox of this machine, tried out.

    Raises:
        SandboxUnavailable: what is missing.
    """
    bwrap = find_bwrap()
    python = python_files()
    modes: tuple[Mode, ...] = ("root", "user") if os.geteuid() == 0 else ("user",)
    reasons = []
    for mode in modes:
        sandbox = Sandbox(bwrap, python, mode)
        try:
            outcome = sandbox.run_program(_TRIAL, b"", Limits())
        except SandboxFailed as exc:
            reasons.append(f"as {mode}: {exc}")
            continue
        if outcome.stdout == b"confined\n":
            return sandbox
        reasons.append(f"as {mode}: {outcome.error or outcome.stdout.decode(errors='replace')}")
    raise SandboxUnavailable("bubblewrap cannot confine a program here: " + "; ".join(reasons))


def find_bwrap() -> str:
    """The path of bubblewrap.

    Raises:
        SandboxUnavailable: it is not installed, or this is not Linux.
    """
    if sys.platform != "linux":
        raise SandboxUnavailable("programs can only be confined on Linux")
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise SandboxUnavailable("bubblewrap is not installed (Debian: bubblewrap)")
    return bwrap


def available() -> str | None:
    """None if programs can be confined here, else what is missing."""
    try:
        prepare()
    except SandboxUnavailable as exc:
        return str(exc)
    return None


_TRIAL = """
import os, socket
def refused(action):
    try:
        action()
    except OSError:
        return
    raise SystemExit(f"not confined: {action.__name__} was allowed")
def fork():
    if os.fork() == 0:
        os._exit(0)
def read(): open("/etc/passwd").close()
def write(): open("/written", "w").close()
def connect(): socket.socket()
def other_processes(): os.listdir("/proc")
for action in (fork, read, write, connect, other_processes):
    refused(action)
print("confined" if os.getuid() else "still root")
"""


def _view(python: PythonFiles, mode: Mode) -> list[str]:
    """Options of bubblewrap that do not change from run to run."""
    view = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    view += ["--unshare-cgroup-try", "--hostname", "box", "--die-with-parent", "--new-session"]
    view += ["--cap-drop", "ALL"]
    if mode == "user":
        view += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    else:  # for the harness, which loses them with root
        view += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    parents = {str(folder) for _, inside in python.shown for folder in Path(inside).parents}
    for folder in sorted((parents | {"/dev"}) - {"/"}):
        view += ["--perms", "0755", "--dir", folder]  # readable for the harness's new user, too
    for outside, inside in python.shown:
        view += ["--ro-bind", outside, inside]
    for path in python.hidden:
        view += ["--tmpfs", path, "--remount-ro", path]
    for device in ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"):
        view += ["--dev-bind", device, device]
    for name, value in (
        ("LD_LIBRARY_PATH", LIBRARIES),
        ("HOME", FOLDER),
        ("TMPDIR", FOLDER),
        ("LANG", "C.UTF-8"),
        ("PATH", os.path.dirname(python.executable)),
    ):
        view += ["--setenv", name, value]
    return view


def _memory_file(content: bytes | None) -> BinaryIO:
    """A file without a name: sealed with this content, or empty to be written."""
    fd = os.memfd_create("sandbox", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    file = os.fdopen(fd, "w+b", buffering=0)
    if content is not None:
        view = memoryview(content)
        while view:
            view = view[file.write(view) :]
        file.seek(0)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW)
    return file


def _wait(process: subprocess.Popen[bytes], info: BinaryIO, wall_s: float) -> bool:
    """Wait for the end, or bring it about; tells whether it came in time."""
    with os.fdopen(os.pidfd_open(process.pid), "rb", closefd=True) as ended:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        in_time = bool(poll.poll(wall_s * 1000))
        if not in_time:
            # The first process of the sandbox takes all others with it, and bubblewrap, which
            # outlives it, returns when they are gone and leaves no zombie behind.
            info.seek(0)
            try:
                os.kill(json.loads(info.read())["child-pid"], signal.SIGKILL)
            except (ValueError, ProcessLookupError):
                process.kill()
            if not poll.poll(_END_S * 1000):
                process.kill()
    process.wait()
    return in_time


def _tail(errors: BinaryIO) -> str:
    """The last line that was printed to standard error."""
    size = os.fstat(errors.fileno()).st_size
    errors.seek(max(0, size - _ERROR_TAIL_BYTES))
    lines = errors.read(_ERROR_TAIL_BYTES).decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _ending(status: int, in_time: bool, full: bool) -> Ending:
    """Translate an exit status of bubblewrap, which is 128 + signal after a signal."""
    if not in_time:
        return "wall"
    if status in (128 + signal.SIGXCPU, 128 + signal.SIGPROF):
        return "cpu"
    if full:
        return "output"
    if status == 0:
        return "done"
    return "error" if 0 < status < 128 else "killed"
